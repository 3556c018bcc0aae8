"""TOML files that people write: a data card, a sensor, a config, a bench."""

from __future__ import annotations

from pathlib import Path

_CARD = """
format = 1
regions = "components"
min_region = 3
min_region_share = 0.001
nodata = { gray = 0 }
ignore = 255
zero_means = "background"
notes = "n"
licence = "CC0"
source = "s"
[class_names]
1 = "ship"
2 = "x"
[intrinsics]
fx = 500.0
fy = 500.0
cx = 10.0
cy = 12.0
"""
_SENSOR = """
format = 1
name = "bands"
description = "d"
[[source]]
files = ["*.tif", "*.png"]
planes = 3
[defaults]
quantity = "reflectance"
unit = "1"
scale = 1e-4
nodata = [0, 65535]
[[channel]]
name = "a"
plane = 0
wavelength_um = 0.5
valid_range = [0.0, 2.0]
normalize = { kind = "percentile", low = 2, high = 98 }
[[channel]]
name = "b"
plane = 1
normalize = { kind = "db", of = "power", floor = 1e-3 }
[[channel]]
name = "c"
band = 3
normalize = { kind = "range", low = 0, high = 1 }
[[channel]]
name = "d"
plane = 2
normalize = "log"
[[channel]]
name = "e"
plane = 2
normalize = { kind = "z-score", mean = 0.3, std = 0.1 }
"""
_CONFIG = """
modality = "gray"
data = "set"
out = "run"
foundation = "tiny"
mat = "mat-residual"
tune = "lora"
regions = "instances"
image_size = 64
steps = 5
batch_size = 2
lr = 1e-3
seed = 3
augment = true
rotate = false
paste = 0.0
mat_options = { width = 8 }
tune_options = { rank = 4 }
workers = 0
nodata = 0
channels = [0]
"""
_BENCH = """
title = "T"
foundation = "tiny"
seeds = [0, 1]
lr = [1e-4, 1e-3]
score = "miou_object"
reference = "x"
keep_bundles = true
[train]
image_size = 64
steps = 4
batch_size = 2
[[data]]
name = "d"
modality = "gray"
data = "set"
regions = "instances"
[[data]]
name = "e"
modality = "gray"
simulate = { count = 4, seed = 0, size = [32, 32] }
averaged = false
[[grid]]
mat = ["mat", "mat-residual"]
tune = ["lora"]
train_share = [0.5, 1.0]
[[arm]]
name = "x"
from_scratch = true
steps_factor = 2
seeds = 0
on = "d"
[quick]
data = "d"
arms = ["x"]
seeds = 0
steps = 2
"""


def make_documents(folder: Path) -> None:
    """One of each, with most of the keys it may have."""
    for name, text in (("card", _CARD), ("sensor", _SENSOR), ("config", _CONFIG), ("bench", _BENCH)):
        (folder / f"{name}.toml").write_text(text.lstrip())
