"""Checks of a sensor: its declaration, its files, and what a network gets of it."""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np

from simmat.errors import ConfigError, SimMATError
from simmat.io.images import image_size
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.normalize import fit_channels, normalize
from simmat.sensors.options import ModalityOptions, format_options, parse_options
from simmat.types import Channel, Georeference, Prompt, SensorImage, Window
from simmat_testing.checks import CheckFailed, CheckSkipped, fault
from simmat_testing.modality_case import ModalityCase, numbered_scene, same_bits
from simmat_testing.tiny import TINY

QUANTITY_UNITS: Mapping[str, tuple[str, ...]] = {
    "srgb": ("count",),
    "counts": ("count",),
    "intensity": ("count", "1"),
    "reflectance": ("1",),
    "radiance": ("W/(m2 sr um)", "W/(m2 sr)", "mW/(m2 sr nm)"),
    "irradiance": ("W/m2", "W/(m2 um)", "W/(m2 nm)", "mW/(m2 nm)"),
    "brightness_temperature": ("K",),
    "temperature": ("K",),
    "depth": ("m",),
    "distance": ("m",),
    "range": ("m",),
    "elevation": ("m",),
    "height_above_ground": ("m", "count"),
    "height_above_ground_level": ("m",),
    "disparity": ("px",),
    "horizontal_disparity": ("1/m", "count"),
    "angle_with_gravity": ("deg", "rad", "count"),
    "angle_of_linear_polarization": ("rad", "deg"),
    "angle_of_polarization": ("rad", "deg"),
    "degree_of_linear_polarization": ("1",),
    "degree_of_circular_polarization": ("1",),
    "degree_of_polarization": ("1",),
    "backscatter": ("dB",),
    "target_strength": ("dB",),
    "sound_pressure_level": ("dB",),
    "amplitude": ("count", "1", "V", "Pa"),
    "power": ("1", "W"),
    "phase": ("rad", "deg"),
    "coherence": ("1",),
    "coherency": ("1", "W"),
    "radial_velocity": ("m/s",),
}
"""Quantities that SimMAT and its plugins know, with their units; an author may use other quantities, with any unit."""

_OPTICAL = (
    "srgb",
    "counts",
    "reflectance",
    "radiance",
    "irradiance",
    "depth",
    "disparity",
    "horizontal_disparity",
)
"""Quantities of cameras, whose wavelengths are below 100 um; others may be those of a radar."""
_SIZE = 64
"""Side of the input of the network that is trained, in pixels."""
_ODD_FOLDER = "a folder, ünïcødé 海 (1)"


def with_each_option(adapter: ModalityAdapter) -> tuple[ModalityAdapter, ...]:
    """Return a sensor, and the sensor with every other value of each option that has a fixed set of values.

    One option is changed at a time; a value that needs another option is left out.
    """
    made = [adapter]
    for name, field in adapter.Options.model_fields.items():
        for value in _fixed_values(field.annotation):
            if value != field.default:
                with contextlib.suppress(ConfigError):  # it needs another option
                    made.append(adapter.with_options({adapter.name: {name: value}}))
    return tuple(made)


def _fixed_values(annotation: Any) -> tuple[Any, ...]:
    """Return the values of bool and Literal types; none for numbers and texts."""
    if annotation is bool:
        return (True, False)
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(
        value for part in get_args(annotation) for value in _fixed_values(part)
    )


def name_with_options(adapter: ModalityAdapter) -> str:
    """Return a sensor's name with its options, for the id of a test: "depth unit=mm"."""
    return f"{adapter.name} {format_options(adapter.stated_options())}".strip()


def options_are_described(case: ModalityCase) -> None:
    """Every option has a description and a default that is allowed, and setting one does not change the sensor."""
    adapter, model = case.declared, case.declared.Options
    if not issubclass(model, ModalityOptions) or not isinstance(adapter.options, model):
        raise CheckFailed(
            f"Options is {model!r}, options are {type(adapter.options).__name__}",
            "make Options a subclass of simmat.ModalityOptions, and call super().__init__(options) in __init__",
        )
    for name, field in model.model_fields.items():
        if field.is_required() or not field.description:
            raise CheckFailed(
                f"option {name!r} has no {'default' if field.is_required() else 'description'}",
                'declare it as  name: TYPE = Field(DEFAULT, description="…")',
            )
    # the defaults are allowed values
    parse_options(model, model().model_dump(mode="json"), adapter.name)
    before = adapter.options
    with_each_option(adapter)
    if adapter.options != before:
        raise CheckFailed(
            "setting an option changed the sensor itself",
            "set what depends on options in __init__",
        )


def unit_fits_quantity(case: ModalityCase) -> None:
    """The unit of a channel, as declared and as loaded, is one that its quantity is measured in."""
    channels = list(_channels_of(case))
    # a file may say counts where kelvin is declared
    with contextlib.suppress(CheckSkipped):
        channels += case.load(case.samples[0]).channels
    for channel in channels:
        units = QUANTITY_UNITS.get(channel.quantity, (channel.unit,))
        if channel.unit not in units:
            raise CheckFailed(
                f"channel {channel.name!r} is {channel.quantity} in {channel.unit!r}",
                f"{channel.quantity} goes with {' or '.join(map(repr, units))}: convert in load, "
                "or name another quantity",
            )


def wavelengths_plausible(case: ModalityCase) -> None:
    """A wavelength is given in micrometres and is plausible for its quantity."""
    for channel in _channels_of(case):
        # to the far infrared, or to radio of 10 MHz
        low, high = 0.01, 100.0 if channel.quantity in _OPTICAL else 3e7
        if (
            channel.wavelength_um is not None
            and not low <= channel.wavelength_um <= high
        ):
            raise CheckFailed(
                f"channel {channel.name!r} ({channel.quantity}) has wavelength_um {channel.wavelength_um:g}; "
                f"plausible are {low:g} to {high:g}",
                "give the centre of the band in micrometres (1000 nm are 1), or None if there is none",
            )


def _channels_of(case: ModalityCase) -> tuple[Channel, ...]:
    """Return the declared channels; those of a sample where the sensor declares none."""
    return case.declared.channels or case.load(case.samples[0]).channels


def simulation_is_seeded(case: ModalityCase) -> None:
    """`simulate` draws all its noise from the generator it is given: the same seed gives the same image."""
    try:
        scene = numbered_scene(0)
        one, two = (
            case.adapter.simulate(scene, np.random.default_rng(5)) for _ in range(2)
        )
    except ConfigError as error:
        raise CheckSkipped(str(error)) from error
    if not same_bits(one, two) or one.size_hw != scene.size_hw:
        raise CheckFailed(
            f"one scene of {scene.size_hw} and one seed gave two different images, or one of {one.size_hw}",
            "draw from `rng` alone, and simulate on the scene's pixel grid",
        )


def loads_what_it_declares(case: ModalityCase) -> None:
    """`load` returns the declared channels at the size of the file, with something valid in each."""
    image = case.load(case.samples[0])
    if not np.isfinite(image.data[image.valid]).all():
        raise CheckFailed(
            "pixels that are not finite are marked valid",
            "build the image with SensorImage.from_planes",
        )
    for channel, valid in zip(image.channels, image.valid, strict=True):
        if not valid.any():
            raise CheckFailed(
                f"channel {channel.name!r} has no valid pixel",
                "look at its valid_range, nodata and unit",
            )
    declared, found = (
        [channel.name for channel in channels]
        for channels in (case.adapter.channels, image.channels)
    )
    if declared and found != declared:
        raise CheckFailed(
            f"load gave {len(found)} channels {found}, declared are {len(declared)}: {declared}",
            "declare what load returns; leave `channels` empty if only the file can say",
        )
    if case.given:
        _expect_upright(case, image)
    if case.simulated and image.size_hw != case.simulated[0].size_hw:
        raise CheckFailed(
            f"a file of (height, width) {case.simulated[0].size_hw} was loaded as {image.size_hw}",
            "do not crop, pad or resize in load; the core does what the network needs",
        )


def _expect_upright(case: ModalityCase, image: SensorImage) -> None:
    """Fail if rows and columns are swapped, by the size that an ordinary image file states."""
    file = case.samples[0][case.adapter.source_names()[0]]
    try:
        height, width = image_size(file)
    except SimMATError:
        return  # a format of the author's own
    if height != width and image.size_hw == (width, height):
        raise CheckFailed(
            f"a file of (height, width) {(height, width)} was loaded as {image.size_hw}",
            "let rows be the height and columns the width",
        )


def same_file_same_bits(case: ModalityCase) -> None:
    """The same file gives the same bits from any path, and loading neither changes it nor writes another."""
    image = case.load(case.samples[0])
    files = case.copy(case.samples[0], _ODD_FOLDER)
    before = _content(case.folder / _ODD_FOLDER)
    try:
        again = case.load(files)
    except Exception as error:
        raise CheckFailed(
            f"{next(iter(files.values()))} cannot be read: {fault(error)}",
            "pass the Path itself to the library that reads the file; do not split it or turn it into bytes",
        ) from error
    if not same_bits(image, again):
        raise CheckFailed(
            "loading one file twice gave different pixels or channels",
            "read only what the file holds",
        )
    if _content(case.folder / _ODD_FOLDER) != before:
        raise CheckFailed(
            "load wrote, changed or removed a file",
            "keep what load computes in memory, or in a cache",
        )


def _content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def windows_are_parts(case: ModalityCase) -> None:
    """Where `window_size` gives a size it is that of the image, and `load_window` gives the same part as `load`."""
    files = case.samples[0]
    size_hw = case.adapter.window_size(files)
    if size_hw is None:
        return
    whole = case.load(files)
    if size_hw != whole.size_hw:
        raise CheckFailed(
            f"window_size is {size_hw}, load gave {whole.size_hw}",
            "return (height, width) of the reference source",
        )
    height, width = whole.size_hw
    for window in (
        Window(0, 0, height, width),
        Window(height // 3, width // 4, height - 1, width),
        Window(height - 1, width - 1, height, width),
    ):
        part, expected = case.adapter.load_window(files, window), whole.cut(window)
        if not same_bits(part, expected) or not _same_place(
            part.georeference, expected.georeference
        ):
            raise CheckFailed(
                f"load_window of rows {window.y0} to {window.y1}, columns {window.x0} to {window.x1} is not that part "
                "of what load gives",
                "pass the window to read_image, compute nothing from the image as a whole, and shift the georeference; "
                "or let window_size return None",
            )


def _same_place(one: Georeference | None, other: Georeference | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.crs == other.crs and bool(
        np.allclose(one.transform, other.transform, rtol=1e-9, atol=0)
    )


def bad_files_are_refused(case: ModalityCase) -> None:
    """A file that is missing, cut short or of another kind raises a SimMAT error that names its path."""
    for source in case.adapter.source_names():
        files = case.copy(case.samples[0], f"bad {source}")
        whole = files[source].read_bytes()
        for share in (0.9, 0.5, 0.0):
            files[source].write_bytes(whole[: int(len(whole) * share)])
            _expect_refusal(
                case, files, source, f"cut to {share:.0%} of its {len(whole)} bytes"
            )
        files[source].write_bytes(
            b"This is a line of plain text, and no sensor wrote it.\n" * 40
        )
        _expect_refusal(case, files, source, "plain text under the sensor's ending")
        files[source].unlink()
        _expect_refusal(case, files, source, "missing")


def _expect_refusal(
    case: ModalityCase, files: dict[str, Path], source: str, state: str
) -> None:
    try:
        found = f"returned an image of {case.adapter.load(files).data.shape}"
    except SimMATError as error:
        if str(files[source]) in str(error):
            return
        found = f"does not name {files[source].name!r} in its error: {error}"
    except Exception as error:
        found = f"raised {fault(error)}"
    raise CheckFailed(
        f"source {source!r} was {state}; load {found}",
        "check the size of the file and what its header says, catch what your library raises, and raise "
        'DataError(f"{path}: …") of simmat.errors',
    )


def survives_pickle_and_json(case: ModalityCase) -> None:
    """A pickled copy of the sensor, which data loaders get, loads the same bits, and its channels survive json."""
    files = case.samples[0]
    try:
        copy = pickle.loads(pickle.dumps(case.adapter)).load(files)
    except Exception as error:
        raise CheckFailed(
            f"a pickled copy could not load the sample: {fault(error)}",
            "keep no lambda, open file or lock in the adapter; open what load needs inside load",
        ) from error
    if not same_bits(copy, case.load(files)):
        raise CheckFailed(
            "a pickled copy loaded other pixels",
            "set what varies as plain attributes in __init__",
        )
    for channel in _channels_of(case):
        try:
            json.dumps(asdict(channel))
        except (TypeError, ValueError) as error:
            raise CheckFailed(
                f"channel {channel.name!r} does not survive json: {error}",
                "use plain text and numbers in Channel",
            ) from error


def normalized_samples_are_scaled(case: ModalityCase) -> None:
    """Normalized samples have a mean within ±1 and a standard deviation of 0.2 to 5 in every channel."""
    images, channels = _transformed(case)
    planes = [normalize(image, channels) for image in images]  # each (C, H, W)
    for index, channel in enumerate(channels):
        values = np.concatenate(
            [
                p[index][image.valid[index]]
                for p, image in zip(planes, images, strict=True)
            ]
        )
        if not (abs(values.mean()) <= 1 and 0.2 <= values.std() <= 5):
            raise CheckFailed(
                f"channel {channel.name!r} has mean {values.mean():.3g} and std {values.std():.3g} after normalization "
                f"by mean {channel.mean:.4g} and std {channel.std:.4g} {channel.unit}",
                "state mean and std of what `transform` returns, in its unit, or leave them to the training split; a "
                "few huge values need a log in `transform`",
            )


def training_reaches_every_channel(case: ModalityCase) -> None:
    """A training step has a finite loss, and a gradient in the MAT that is not zero for every channel."""
    import torch

    from simmat.data.pipeline import Pipeline, prompt_batch
    from simmat_testing.networks import backpropagate, build_network

    (_, channels), image = _transformed(case), case.load(case.samples[0])
    network = build_network(TINY, image_size=_SIZE, channels=channels)
    planes, content, frame = Pipeline(case.adapter, channels, _SIZE)(image)
    middle = Prompt.points([(image.size_hw[1] / 2, image.size_hw[0] / 2)])
    prompts = prompt_batch([middle], frame, torch.device("cpu"))
    loss = backpropagate(network, planes[None], content[None], [prompts])
    convolutions = (m for m in network.mat.modules() if isinstance(m, torch.nn.Conv2d))
    # (out, C, k, k)
    gradient = next(
        m for m in convolutions if m.in_channels == len(channels)
    ).weight.grad
    if gradient is None or not bool(loss.isfinite() and gradient.isfinite().all()):
        raise CheckFailed(
            f"the loss is {loss.item()}, and it or the gradient of the MAT is not finite",
            "mark what is not measured as invalid, and let `transform` give no NaN or infinity",
        )
    sums = gradient.abs().sum(dim=(0, 2, 3)).tolist()  # (C,)
    if silent := [
        channel.name
        for channel, total in zip(channels, sums, strict=True)
        if not total > 0
    ]:
        raise CheckFailed(
            f"no gradient reaches the MAT through {', '.join(silent)}: the network gets only zeros from it",
            "look at its valid pixels: scattered ones are lost when an image is resized, fill them in load",
        )


def _transformed(case: ModalityCase) -> tuple[list[SensorImage], tuple[Channel, ...]]:
    """Return the transformed samples, and their channels with the mean and std of a training on them."""
    from simmat.sensors.normalize import Moments, image_moments

    images = [case.adapter.transform(case.load(files)) for files in case.samples]
    statistics = reduce(Moments.merge, map(image_moments, images)).statistics()
    found = zip(
        images[0].channels,
        statistics.pixels,
        statistics.mean,
        statistics.std,
        strict=True,
    )
    for channel, pixels, mean, std in found:
        if not (pixels and np.isfinite(mean) and np.isfinite(std) and std > 0):
            raise CheckFailed(
                f"channel {channel.name!r} has {pixels} valid pixels after `transform`, of mean {mean:g} and std "
                f"{std:g}",
                "look at its unit, valid_range and transform: it needs valid pixels, all finite, not all equal",
            )
    return images, fit_channels(
        images[0].channels,
        statistics,
        pixel_mean=TINY.pixel_mean,
        pixel_std=TINY.pixel_std,
    )
