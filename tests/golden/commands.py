"""The commands and the Python that README and docs show, on small data."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image
from safetensors.numpy import load_file

from golden.describe import (
    describe_array,
    describe_file,
    describe_tensors,
    describe_values,
    score,
)
from golden.workshop import (
    Outputs,
    Workshop,
    case,
    draw_shapes,
    files_in,
    read_json,
    simmat,
    write_on_map,
    write_shapes,
)

THERMAL = ("simmat-plugin-thermal", "simmat-plugin-lite", "simmat-plugin-report")
FOLLOW = (*THERMAL, "simmat-plugin-sequences")
TINY = ("simmat-testing",)
STEPS = 12
TRAINING = (
    f"--steps {STEPS} --val-every 6 --image-size 64 --batch-size 2 --lr 2e-3 --workers 0 --device cpu"
    " --keep best --precision fp32"
)
ON_DISC = "--point 24,36"


def bundle_of(run: str) -> Path:
    """Return the bundle of a run."""
    file = Path(run) / "bundle.safetensors"
    return file if file.is_file() else Path(run) / "bundle"


def trained_run(run: str) -> Outputs:
    """Describe the folder of a run, with the tensors of its bundle and its validation scores."""
    bundle = bundle_of(run)
    weights = bundle if bundle.is_file() else bundle / "weights.safetensors"
    found = files_in(run, leave_out=("bundle", "last.safetensors"))
    found[f"{run}: tensors of the bundle"] = describe_tensors(load_file(weights))
    return found


# Data


@case("data", packages=THERMAL)
def data(shop: Workshop) -> Outputs:
    """The data set of most cases, a scene on a map, and its halves."""
    write_shapes(Path("shapes"), {"train": 6, "val": 2, "test": 2})
    rng = np.random.default_rng(1)
    scene = np.block(
        [[draw_shapes(rng, (72, 96))[0] for _ in range(2)] for _ in range(2)]
    )
    write_on_map(Path("scene.tif"), scene, 0)
    write_on_map(Path("tiles/west.tif"), scene[:, :96], 0)
    write_on_map(Path("tiles/east.tif"), scene[:, 96:], 96)
    for index in range(4):
        image = np.roll(
            draw_shapes(np.random.default_rng(2), (72, 96))[0], 3 * index, axis=1
        )
        Path("video").mkdir(exist_ok=True)
        Image.fromarray(image).save(f"video/f{index:04}.tif")
    mask = draw_shapes(np.random.default_rng(2), (72, 96))[1] % 1000
    Image.fromarray(mask.astype(np.uint8)).save("f0000.png")
    return files_in("shapes") | files_in("tiles")


@case("data simulate", packages=("simmat-plugin-thermal", "simmat-plugin-scenes"))
def data_simulate(shop: Workshop) -> Outputs:
    simmat("data simulate --modality thermal --count 3 --size 96 72 --out scenes")
    simmat("data simulate --modality rgb+thermal --count 3 --size 64 48 --out pairs")
    simmat(
        "data simulate --modality thermal --count 3 --frames 2 --size 64 48 --seed 11 --out videos"
    )
    return files_in("scenes") | files_in("pairs") | files_in("videos")


@case("data check", "data", packages=THERMAL)
def data_check(shop: Workshop) -> Outputs:
    shutil.copytree(
        "shapes", "checked", ignore=shutil.ignore_patterns("card.toml", ".*")
    )
    words = (
        "--modality thermal --modality-option unit=cK --regions panoptic --write-card"
    )
    printed = simmat(f"data check checked {words} --json")
    return {
        "printed": describe_values(_json(printed)),
        **files_in("checked", leave_out=("images", "masks")),
    }


@case("data convert", "data", packages=(*THERMAL, "simmat-plugin-convert"))
def data_convert(shop: Workshop) -> Outputs:
    simmat(
        "data convert shapes --modality thermal --to coco --images link --out as-coco"
    )
    simmat(
        "data convert as-coco --modality thermal --to masks --images link --out as-masks"
    )
    return files_in("as-coco") | files_in("as-masks")


# Training


@case("train", "data", packages=THERMAL)
def train(shop: Workshop) -> Outputs:
    simmat(
        f"train --modality thermal --data shapes --foundation lite {TRAINING} --out run"
    )
    return trained_run("run")


@case("train --resume", "data", packages=THERMAL)
def train_resume(shop: Workshop) -> Outputs:
    """Stopped after a step that is not validated; its bundle is that of `train`, to the bit."""
    import simmat as python
    from simmat.errors import SimMATError

    class Stop(python.Callback):
        def stepped(self, step: int, losses: dict[str, float]) -> None:
            if step == 3:
                os.kill(os.getpid(), signal.SIGINT)

    with contextlib.suppress(SimMATError):
        python.train(
            modality="thermal",
            data="shapes",
            foundation="lite",
            out="stopped",
            steps=STEPS,
            val_every=6,
            image_size=64,
            batch_size=2,
            lr=2e-3,
            workers=0,
            device="cpu",
            precision="fp32",
            keep="best",
            callbacks=[Stop()],
            progress=False,
        )
        raise AssertionError("the training was not stopped")
    simmat("train --resume stopped")
    return trained_run("stopped")


@case("train --init", "train", packages=THERMAL)
def train_init(shop: Workshop) -> Outputs:
    words = TRAINING.replace(f"--steps {STEPS} --val-every 6", "--steps 2")
    simmat(
        f"train --init run --modality thermal --data shapes {words} --no-pictures --out more"
    )
    return trained_run("more")


@case("train several sensors", "data", packages=THERMAL)
def train_sensors(shop: Workshop) -> Outputs:
    """Two sensors, then a third one."""
    shutil.copytree(
        "shapes", "counts", ignore=shutil.ignore_patterns("card.toml", ".*")
    )
    Path("counts/card.toml").write_text(
        'format = 1\nregions = "panoptic"\n', encoding="utf-8"
    )
    Path("sensors.toml").write_text(SENSORS, encoding="utf-8")
    simmat("train --config sensors.toml --out several")
    simmat(
        "train --init several --new-sensor third --modality thermal --data shapes --steps 1 --image-size 64"
        " --batch-size 2 --workers 0 --device cpu --precision fp32 --no-pictures --keep best"
        " --out third"
    )
    simmat(f"predict several/warm shapes/images/s8.tif {ON_DISC} --out several-masks")
    simmat(f"predict third/third shapes/images/s8.tif {ON_DISC} --out third-masks")
    leave_out = (".", "bundle", "last")
    return (
        files_in("several", leave_out=leave_out)
        | files_in("third", leave_out=leave_out)
        | files_in("several-masks")
        | files_in("third-masks")
        | {"score": score(read_json("several-masks/s8.json")["score"])}
    )


SENSORS = """foundation = "lite"
steps = 2
image_size = 64
batch_size = 2
workers = 0
device = "cpu"
precision = "fp32"
pictures = false
keep = "best"

[[data]]
name = "warm"
modality = "thermal"
data = "shapes"

[[data]]
name = "hot"
modality = "thermal-minmax"
data = "counts"
heads = "prompt"
"""


@case("train joined sensors", "data simulate", packages=TINY)
def train_joined(shop: Workshop) -> Outputs:
    """A transfer layer that works without some of its channels."""
    words = "--foundation tiny --mat channel-attention --tune lora --heads prompt --steps 2 --image-size 64"
    simmat(
        f"train --modality rgb+thermal --data pairs {words} --batch-size 2 --workers 0 --device cpu"
        " --no-pictures --keep best --out joined"
    )
    return trained_run("joined")


# Evaluation


@case("eval", "train", packages=THERMAL)
def evaluate(shop: Workshop) -> Outputs:
    simmat(
        "eval run --data shapes --split test --everything --semantic --out eval.json"
    )
    return _evaluation("eval.json")


@case("eval --protocol full", "train", packages=THERMAL)
def evaluate_full(shop: Workshop) -> Outputs:
    simmat(
        "eval run --data shapes --split val --protocol full --clicks 2 --repeats 1 --no-zero-shot --out full.json"
    )
    return _evaluation("full.json")


def _evaluation(file: str) -> Outputs:
    scores = read_json(file)
    found = {
        "scores": describe_values(scores),
        "tuned": score(scores["tuned"]["miou_object"]),
    }
    if scores["zero_shot"] is not None:
        found["zero-shot"] = score(scores["zero_shot"]["miou_object"])
    if scores["tuned"].get("everything"):
        found["AP50"] = score(scores["tuned"]["everything"]["any_class"]["ap50"])
        found["class map"] = score(scores["tuned"]["semantic"]["miou"])
    return found


# Prediction


def predicted(out: str, words: str, *scored: str) -> Outputs:
    """Describe what `simmat predict` writes, and the scores in some of its json files."""
    simmat(f"predict {words} --out {out}")
    found = files_in(out)
    for name in scored:
        found[f"{name}: score"] = score(read_json(f"{out}/{name}")["score"])
    return found


@case("predict --point", "train", packages=THERMAL)
def predict_point(shop: Workshop) -> Outputs:
    words = f"{bundle_of('run')} shapes/images/s8.tif shapes/images/s9.tif {ON_DISC} --negative 70,36 --mask best"
    return predicted("points", words, "s8.json", "s9.json")


@case("predict a folder", "train", packages=THERMAL)
def predict_folder(shop: Workshop) -> Outputs:
    return predicted(
        "folder", f"run shapes {ON_DISC} --modality-option unit=cK", "s0.json"
    )


@case("predict --prompts", "train", packages=THERMAL)
def predict_prompts(shop: Workshop) -> Outputs:
    Path("prompts.csv").write_text(PROMPTS, encoding="utf-8")
    return predicted("table", "run shapes/images --prompts prompts.csv", "s8_disc.json")


PROMPTS = """file,object,point,negative,box
s8.tif,disc,"24,36",,
s8.tif,disc,"28,36","60,40",
s8.tif,square,,,"55,20,85,55"
s9.tif,disc,"24,36",,
"""


@case("predict untuned", "data", packages=THERMAL)
def predict_untuned(shop: Workshop) -> Outputs:
    words = f"--foundation lite --modality thermal --modality-option unit=cK shapes/images/s8.tif {ON_DISC}"
    return predicted("untuned", words, "s8.json")


@case("predict --everything", "train", packages=THERMAL)
def predict_everything(shop: Workshop) -> Outputs:
    words = "run shapes/images/s8.tif shapes/images/s9.tif --everything --min-score 0.2 --min-area 20 --classes disc"
    return predicted("everything", words)


@case(
    "predict every format",
    "train",
    packages=(*THERMAL, "simmat-plugin-geo", "simmat-plugin-labelstudio"),
)
def predict_formats(shop: Workshop) -> Outputs:
    """A scene on a map, in windows."""
    formats = "labels,coco,overlay,geojson,gpkg,geotiff,label-studio"
    words = f"run scene.tif --everything --semantic --tile 96 --overlap 16 --format {formats}"
    return predicted("formats", words)


@case("predict --tile", "train", packages=(*THERMAL, "simmat-plugin-geo"))
def predict_tile(shop: Workshop) -> Outputs:
    """A click in a large image, in pixels and in map coordinates."""
    words = f"run scene.tif --tile 96 {ON_DISC}"
    on_map = "run scene.tif --tile 96 --crs EPSG:32632 --point 500024,4999964"
    return predicted("tiled", words) | predicted("tiled-by-map", on_map)


@case("predict --mosaic", "train", packages=(*THERMAL, "simmat-plugin-geo"))
def predict_mosaic(shop: Workshop) -> Outputs:
    return predicted("mosaic", "run tiles --everything --semantic --mosaic --tile 96")


@case("predict --reference", "train", packages=THERMAL)
def predict_reference(shop: Workshop) -> Outputs:
    words = "--reference shapes/images/s0.tif --reference-mask shapes/masks/s0.png"
    return predicted("reference", f"run shapes/images/s8.tif {words}")


@case("predict --uncertainty", "train", packages=THERMAL)
def predict_uncertainty(shop: Workshop) -> Outputs:
    return predicted(
        "uncertainty", f"run shapes/images/s8.tif {ON_DISC} --uncertainty", "s8.json"
    )


@case(
    "predict --missing",
    "train joined sensors",
    packages=("simmat-plugin-thermal", "simmat-plugin-scenes"),
)
def predict_missing(shop: Workshop) -> Outputs:
    rgb = next(Path("pairs/images").rglob("s00000.png"))
    thermal = next(Path("pairs/images").rglob("s00000.tif"))
    both = predicted(
        "with-both",
        f"joined --source rgb={rgb} --source thermal={thermal} --point 20,20",
    )
    return both | predicted(
        "with-rgb", f"joined --source rgb={rgb} --missing thermal --point 20,20"
    )


# Sequences


@case("follow", "train", packages=FOLLOW)
def follow(shop: Workshop) -> Outputs:
    simmat("follow run video --mask f0000.png@0 --format coco,mots --out followed")
    return files_in("followed")


@case("follow --prompts", "data", packages=FOLLOW)
def follow_prompts(shop: Workshop) -> Outputs:
    """The untuned model, by a click in a frame."""
    Path("clicks.csv").write_text(
        'file,object,point,negative,box\nf0000.tif,1,"24,36",,\n', encoding="utf-8"
    )
    words = "--foundation lite --modality thermal --modality-option unit=cK video"
    simmat(f"follow {words} --prompts clicks.csv --format coco --out followed-clicks")
    return files_in("followed-clicks")


@case("follow with a correction", "follow", packages=FOLLOW)
def follow_correction(shop: Workshop) -> Outputs:
    """All files, of the frames as one TIFF."""
    frames = [np.asarray(Image.open(f"video/f{index:04}.tif")) for index in range(4)]
    tifffile.imwrite("night.tif", np.stack(frames), photometric="minisblack")
    shutil.copy("followed/labels/f0002.png", "corrected.png")
    simmat(
        "follow run night.tif --mask f0000.png@0 --mask corrected.png@2 --smooth 1 --format coco,overlay,volume"
        " --out corrected"
    )
    assert list(Path("corrected").glob("overlay.*"))  # .mp4, or .gif without PyAV
    return files_in("corrected", leave_out=("overlay",)) | {
        "overlay": {"like": "a film"}
    }


# Export, reports, bundles


@case(
    "export",
    "data",
    packages=(*THERMAL, "simmat-plugin-sam", "simmat-plugin-export", "simmat-runtime"),
)
def export(shop: Workshop) -> Outputs:
    """The files, and the masks of onnxruntime, by SimMAT and without it."""
    import simmat_runtime.command as runtime

    import simmat as python

    simmat(
        "train --modality thermal --data shapes --foundation sam_vit_tiny --from-scratch --heads prompt --steps 1"
        " --image-size 64 --batch-size 2 --workers 0 --device cpu --no-pictures --keep best --out small"
    )
    simmat("export small --out exported")
    found = files_in("exported", leave_out=("manifest", "bundle"))
    found |= predicted(
        "of-exported", f"exported shapes/images/s8.tif {ON_DISC}", "s8.json"
    )
    image = python.load("small", device="cpu").set_image("shapes/images/s8.tif")
    np.save("image.npy", np.where(image.valid, image.data, np.nan))
    with contextlib.redirect_stdout(io.StringIO()):
        runtime.main(f"predict exported image.npy {ON_DISC} --out mask.npy".split())
    return found | {"mask.npy": describe_array(np.load("mask.npy"))}


@case("report", "train", packages=THERMAL)
def report(shop: Workshop) -> Outputs:
    simmat("report run --data shapes --out page.html")
    return {"page.html": describe_file(Path("page.html"), shop.root)}


@case("bundle show", "train", packages=THERMAL)
def bundle_show(shop: Workshop) -> Outputs:
    shown = _json(simmat(f"bundle show {bundle_of('run')} --json"))
    return {
        "printed": describe_values(shown),
        "click": score(shown["metrics"]["val"]["miou_object"]),
    }


# Python


@case("Python: a model", "train", packages=THERMAL)
def python_model(shop: Workshop) -> Outputs:
    import simmat as python

    model = python.load("run", device="cpu")
    model.set_image("shapes/images/s8.tif")
    found = model.predict(points=[(24, 36)])
    box = model.predict(box=(55, 20, 85, 55))
    both = model.predict_prompts(
        [python.Prompt.points([(24, 36)]), python.Prompt.points([(70, 36)], [(24, 36)])]
    )
    objects = model.segment_everything()
    classes = model.segment_semantic()
    unsure = model.uncertainty(points=[(24, 36)])
    kelvin = np.full((1, 72, 96), 290.0, np.float32)
    kelvin[0, 20:45, 20:45] = 305
    model.set_image(kelvin)
    return {
        "click": describe_array(found.logits),
        "click, score": score(found.score),
        "box": describe_array(box.mask),
        "first of two": describe_array(both[0].mask),
        "second of two": describe_array(both[1].mask),
        "objects": describe_values([_object(one) for one in objects]),
        "classes": describe_array(classes.labels),
        "probability": describe_array(classes.probability),
        "uncertainty": describe_array(unsure.std),
        "of an array": describe_array(model.predict(points=[(30, 30)]).logits),
    }


def _object(found: Any) -> list[Any]:
    return [
        found.score,
        found.instance.class_id,
        list(found.instance.box_xyxy),
        int(found.instance.crop.sum()),
    ]


@case("Python: large images and sequences", "train", packages=FOLLOW)
def python_windows(shop: Workshop) -> Outputs:
    import simmat as python

    model = python.load("run", device="cpu")
    scene = model.open_image("scene.tif", tile=96)
    objects = scene.segment_everything()
    click = scene.predict(python.Prompt.points([(24, 36)]))
    labels = np.asarray(Image.open("f0000.png"))
    frames = python.FrameSequence("video", "thermal", modality_options={"unit": "cK"})
    found = list(model.follow(frames, {0: labels}))
    return {
        "objects": describe_values([_object(one) for one in objects]),
        "click": describe_array(click.mask),
        "followed": describe_array(np.stack([frame.masks[1] for frame in found])),
        "last": score(found[-1].scores[1]),
    }


@case("Python: arrays and a sensor of one's own", packages=TINY)
def python_sensor(shop: Workshop) -> Outputs:
    import simmat as python

    class Microscope(python.ModalityAdapter):
        name = "microscope"
        description = "fluorescence microscope with two channels"
        sources = (python.Source("image", (".npy",)),)
        channels = (
            python.Channel("dapi", "intensity", "count"),
            python.Channel("gfp", "intensity", "count"),
        )

        def load(self, files: Any) -> Any:
            planes = np.load(files["image"])
            return python.SensorImage.from_planes(
                planes, self.channels, origin=str(files["image"])
            )

    shapes = [draw_shapes(np.random.default_rng(index), (72, 96)) for index in range(6)]
    images = [np.stack([image, image[::-1]]) for image, _ in shapes]
    masks = [mask % 1000 for _, mask in shapes]
    split = {"train": 3, "val": 2, "test": 1}
    data = python.Dataset.from_arrays(
        images, masks, split=split, regions="instances", folder="arrays"
    )
    run = python.train(
        modality=Microscope,
        data=data,
        out="microscope",
        foundation="tiny",
        heads="prompt",
        tune="lora",
        image_size=64,
        steps=4,
        batch_size=2,
        workers=0,
        device="cpu",
        keep="best",
        pictures=False,
        progress=False,
    )
    model = python.load(run, modality=Microscope, device="cpu")
    model.set_image(images[0])
    found = model.predict(points=[(24, 36)])
    scores = python.evaluate(
        run, data, modality=Microscope, zero_shot=False, device="cpu"
    )
    return trained_run("microscope") | {
        "click": describe_array(found.logits),
        "tuned": score(scores["tuned"]["miou_object"]),
    }


@case("Python: the method as parts", packages=TINY)
def python_parts(shop: Workshop) -> Outputs:
    import simmat as python

    torch.manual_seed(0)
    planes = torch.from_numpy(
        np.random.default_rng(0).normal(size=(2, 9, 64, 64)).astype(np.float32)
    )
    layers = {name: python.MAT(9, name) for name in ("mat-residual", "mat", "linear")}
    network = python.build(
        foundation="tiny",
        modality="gray",
        mat="mat-residual",
        tune="lora",
        image_size=64,
    )
    clicks = python.PromptBatch(
        image_index=torch.tensor([0, 1]),
        point_coords=torch.tensor([[[20.0, 30.0]], [[40.0, 10.0]]]),
        point_labels=torch.ones(2, 1, dtype=torch.int64),
    )
    with torch.no_grad():
        found = {
            f"MAT {name}": describe_array(layer(planes).numpy())
            for name, layer in layers.items()
        }
        masks = network.decode(network.encode(planes[:, :1]), clicks)
    return found | {
        "logits": describe_array(masks.logits.numpy()),
        "iou": describe_array(masks.iou.numpy()),
    }


def _json(printed: str) -> Any:
    return json.loads(printed)
