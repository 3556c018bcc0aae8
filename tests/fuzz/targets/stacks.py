"""Files of many frames, as the core and the plugin of sequences read them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from fuzz.case import Case, Place, Target, check_image, registry
from fuzz.damage import mutate_bytes, mutate_file
from fuzz.damage_stacks import mutate_dicom, mutate_nifti
from simmat.data.sequence import FrameSequence
from simmat.errors import SimMATError
from simmat.io.frames import frame_paths, open_stack, stack_format
from simmat.io.images import read_image
from simmat.plugins.registry import import_from_string

_MAX_WRITTEN = 1 << 20
"""Voxels of a volume on whose grid labels are written."""


def _nifti(place: Place, rng: random.Random) -> Case:
    seed = rng.choice(place.seeds.files("nifti"))
    path = place.put(seed.name, mutate_nifti(seed.read_bytes(), rng))
    return _volume(place, path, rng)


def _dicom(place: Place, rng: random.Random) -> Case:
    """Damage one file of a series, or each."""
    seeds = sorted(one for one in place.seeds.folder("dicom").iterdir() if one.is_dir())
    seed = rng.choice(seeds)
    folder = place.files / seed.name
    folder.mkdir()
    files = sorted(seed.iterdir())
    damaged = files if rng.random() < 0.1 else [rng.choice(files)]
    # a value that all files share is refused for another reason than one of a single file
    state = rng.getrandbits(64)
    for file in files:
        content = file.read_bytes()
        if file in damaged:
            content = mutate_dicom(content, random.Random(state))
        (folder / file.name).write_bytes(content)
    case = _volume(place, folder, rng)

    def read() -> None:
        try:
            case.read()
        except SimMATError as error:
            text = str(error)
            # or a slice, or what is computed from all files
            names = (".dcm", f"{folder}/", "affine", "spacing")
            assert any(name in text for name in names), f"no file is named: {text}"
            raise

    return Case(read)


def _volume(place: Place, path: Path, rng: random.Random) -> Case:
    axis = rng.choice("xyzz")
    order = [rng.random() for _ in range(3)]

    def read() -> None:
        _read(path, axis, order)
        _write_labels(path, axis, place.scratch)

    return Case(read)


def _video(place: Place, rng: random.Random) -> Case:
    seed = rng.choice(place.seeds.files("videos"))
    name = seed.name
    if rng.random() < 0.03:
        name = f"a{rng.choice(('.mp4', '.mkv', '.avi', '.webm'))}"
    path = place.put(name, mutate_bytes(seed.read_bytes(), rng))
    order = [rng.random() for _ in range(3)]
    return Case(lambda: _read(path, "", order))


def _frames(place: Place, rng: random.Random) -> Case:
    seed = rng.choice(place.seeds.files("stacks"))
    path = place.put(seed.name, mutate_file(seed, rng))
    order = [rng.random() for _ in range(3)]
    return Case(lambda: _read(path, "", order))


def _read(path: Path, axis: str, order: list[float]) -> None:
    """Read some frames of a file, as planes and as a sensor's image."""
    stack = open_stack(path, axis)
    frames = frame_paths(path, axis)
    assert len(frames) == len(stack) > 0, f"{len(frames)} paths of {len(stack)} frames"
    if stack.spacing_mm is not None:
        assert np.isfinite(stack.spacing_mm).all(), f"spacing is {stack.spacing_mm}"
        assert min(stack.spacing_mm) > 0, f"spacing is {stack.spacing_mm}"
    for share in order:
        found = read_image(frames[int(share * len(frames))])
        planes = found.planes
        assert planes.ndim == 3, f"planes have shape {planes.shape}"
        assert 0 not in planes.shape, f"planes have shape {planes.shape}"
        assert planes.shape[1:] == stack.size_hw, (
            f"a frame of shape {planes.shape} in a stack of {stack.size_hw}"
        )
        assert planes.dtype.kind in "buif", f"planes are {planes.dtype}"
        assert planes.dtype.isnative, f"planes are {planes.dtype}"
        assert found.valid.shape == planes.shape, "valid has another shape"
    sensor = registry().modality("rgb" if len(planes) == 3 else "gray")
    image = check_image(FrameSequence(path, sensor, axis=axis or "z")[0])
    assert image.size_hw == stack.size_hw, f"an image of {image.size_hw}"


def _write_labels(path: Path, axis: str, out: Path) -> None:
    """Write labels on the grid of a volume, as at the end of `follow`, which must not fail then."""
    import nibabel

    stack = open_stack(path, axis)
    if len(stack) * stack.size_hw[0] * stack.size_hw[1] > _MAX_WRITTEN:
        return
    kind = stack_format(path)
    assert kind is not None, "a volume without a format"
    planes = (np.full(stack.size_hw, 7, np.uint16) for _ in range(len(stack)))
    file = out / "labels.nii.gz"
    try:
        import_from_string(kind.write_labels)(file, planes, stack, axis)
        written = nibabel.load(file)
    except Exception as error:
        raise AssertionError(f"labels cannot be written: {error!r}") from error
    assert np.isfinite(written.affine).all(), f"the affine is {written.affine}"


_SEQUENCES = "simmat_plugin_sequences"
TARGETS = (
    Target("nifti", _nifti, needs=(_SEQUENCES, "nibabel")),
    Target("dicom", _dicom, needs=(_SEQUENCES, "pydicom", "nibabel")),
    Target("video", _video, needs=(_SEQUENCES, "av")),
    Target("frames", _frames),
)
