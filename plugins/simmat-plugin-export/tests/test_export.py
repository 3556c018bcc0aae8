"""What is exported gives the masks that the bundle gives, and refuses what it cannot hold."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import pytest
import simmat_runtime
import torch
from bundles import GRAY, tiny_bundle
from installed import need_plugins
from PIL import Image
from runs import gray_set, registry
from simmat_plugin_export import export as exporting
from simmat_plugin_export.export import check_transform, export
from simmat_plugin_export.graphs import Masks, Prepare
from simmat_plugin_export.precision import Precision
from simmat_runtime import manifest as names
from simmat_runtime.command import main

import simmat
from simmat.bundle import Bundle, load_bundle
from simmat.calibration import Calibration, MonotonicMap
from simmat.cli import run
from simmat.data.card import DataCard
from simmat.data.pipeline import Pipeline, restore_logits
from simmat.errors import BundleError, ConfigError, UnknownNameError
from simmat.model_spec import DenseSpec
from simmat.plugins.loader import load_plugins
from simmat.predictor import EverythingSettings, Predictor, TiledImage
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.builtin import Gray, Rgb
from simmat.sensors.normalize import Statistics
from simmat.sensors.sensor_toml import TomlModality, parse_sensor_definition
from simmat.sensors.warp import Alignment
from simmat.types import Letterbox, SensorImage

CLICKS = ((True, False, False),)
EXPORT = registry("export")
EXAMPLE = Path(__file__).parents[3] / "examples" / "serve-without-torch"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A tiny SAM with LoRA that is not zero, and a dense head."""
    dense = DenseSpec(background=True, classes=(3, 5))
    curve = MonotonicMap(
        predicted=(0.0, 0.4, 1.0),
        true=(0.1, 0.3, 0.9),
        objects=40,
        ece=0.2,
        ece_calibrated=0.1,
    )
    calibration = Calibration(click=curve, object=curve, temperature=0.2)
    parts = {
        "tune": "lora",
        "mat": "mat-residual",
        "dense": dense,
        "calibration": calibration,
    }
    folder = tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle", **parts)
    loaded = load_bundle(folder, registry())
    generator = torch.Generator().manual_seed(0)
    for name, parameter in loaded.model.named_parameters():
        if "lora_b" in name:
            parameter.data.normal_(std=0.3, generator=generator)
    return loaded


@pytest.fixture(scope="module")
def folder(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "model"
    export(bundle, out, kinds=CLICKS)
    return out


def picture(size_hw: tuple[int, int] = (52, 83), seed: int = 0) -> np.ndarray:
    """(1, H, W) counts with missing pixels: NaN, and out of the channel's range."""
    rng = np.random.default_rng(seed)
    planes = rng.uniform(0, 255, (1, *size_hw)).astype(np.float32)
    planes[0, 4:19, 3:20] = np.nan
    planes[0, 30:, 60:] = 999
    return planes


@pytest.mark.parametrize("each", [False, True], ids=["rig", "each"])
def test_sensors_that_are_not_aligned_are_joined_as_in_simmat(
    tmp_path: Path, each: bool
) -> None:
    """Two cameras write images of two sizes, on a robot, too; in a hand, each pair has a matrix of its own."""
    channels = (*Rgb().channels, GRAY)
    matrix = [[0.5, 0.02, 1.0], [0.0, 0.5, -1.0], [0.0, 0.0, 1.0]]
    place = Alignment(reference="rgb", matrix=matrix, size=(42, 26))
    if each:
        place = Alignment(reference="rgb")
        values = {"format": 1, "matrices": {"gray.png": matrix}}
        (tmp_path / "alignment.json").write_text(json.dumps(values))
    card = DataCard(regions="instances", alignment={"gray": place})
    bundle = tiny_bundle(
        tmp_path / "bundle",
        modality="rgb+gray",
        sensor_channels=channels,
        channels=tuple(channel.with_statistics(100.0, 50.0) for channel in channels),
        statistics=Statistics(
            (100.0,) * 4,
            (50.0,) * 4,
            tuple(map(tuple, np.eye(4).tolist())),
            (1000,) * 4,
        ),
        zero_shot=((1.0,) * 4,) * 3,
        card=card,
    )
    loaded = load_bundle(bundle, registry())
    export(loaded, tmp_path / "model", kinds=CLICKS)
    rng = np.random.default_rng(0)
    sizes = {"rgb": (52, 83, 3), "gray": (26, 42)}
    files = {name: tmp_path / f"{name}.png" for name in sizes}
    arrays = {}
    for name, size in sizes.items():
        values = rng.integers(0, 255, size, np.uint8)
        Image.fromarray(values).save(files[name])
        arrays[name] = values if values.ndim == 2 else np.moveaxis(values, 2, 0)
    predictor, model = (
        Predictor.of_bundle(loaded),
        simmat_runtime.load(tmp_path / "model"),
    )
    image = predictor.set_image(files)
    model.set_image(arrays, {"gray": matrix} if each else None)
    assert 0.3 < image.valid[3].mean() < 1
    ours, theirs = predictor.predict([(40, 20)]), model.predict([(40, 20)])
    np.testing.assert_allclose(theirs.logits, ours.logits, atol=1e-3)
    words = ["predict", str(tmp_path / "model"), "--point", "40,20", "--out"]
    out = str(tmp_path / "mask.npy")
    given = [f"{name}={file}" for name, file in files.items()]
    if each:
        assert main([*words, out, *given]) == 2
        given.append(f"--matrix=gray={','.join(map(str, np.ravel(matrix)))}")
    assert main([*words, out, *given]) == 0
    np.testing.assert_array_equal(np.load(out), theirs.mask)
    assert main([*words, out, given[0], "thermal=x.npy"]) == 2
    assert main([*words, out, *map(str, files.values())]) == 2


LOOSE = {"peak": 0.05, "min_score": 0.0, "objectness": 0.0, "overlap": 0.9}


@pytest.mark.parametrize(
    ("size_hw", "selection"),
    [((52, 83), "best"), ((64, 170), "single")],
    ids=["whole", "in windows"],
)
def test_every_answer_is_that_of_torch(
    bundle: Bundle,
    folder: Path,
    size_hw: tuple[int, int],
    selection: Literal["single", "best"],
) -> None:
    """By the runtime, which is written without torch, and by SimMAT with what was exported in place of a bundle."""
    image, click = picture(size_hw, seed=3), (size_hw[1] / 2, 20)
    predictor, exported = (
        Predictor.of_bundle(bundle),
        simmat.load(folder, registry=EXPORT),
    )
    model = simmat_runtime.load(folder)
    for one in (predictor, exported, model):
        one.set_image(image)
    ours, classes = (
        predictor.segment_everything(EverythingSettings(**LOOSE)),
        predictor.segment_semantic(),
    )
    answers = [
        (
            exported.predict([click], mask_selection=selection),
            exported.segment_everything(EverythingSettings(**LOOSE)),
            exported.segment_semantic(),
        ),
        (
            model.predict([click], mask_selection=selection),
            model.everything(simmat_runtime.Settings(**LOOSE)),
            model.semantic(),
        ),
    ]
    expected = predictor.predict([click], mask_selection=selection)
    for prediction, found, labels in answers:
        np.testing.assert_allclose(prediction.logits, expected.logits, atol=1e-3)
        assert prediction.mask.shape == size_hw
        assert prediction.score == pytest.approx(expected.score, abs=1e-3)
        assert prediction.class_probability == pytest.approx(
            expected.class_probability, abs=1e-3
        )
        assert len(found) == len(ours) > 0
        assert np.allclose(
            [one.score for one in found], [one.score for one in ours], atol=1e-3
        )
        for one, other in zip(found, ours, strict=True):
            mask = (
                one.mask
                if isinstance(one, simmat_runtime.FoundObject)
                else one.instance.mask(size_hw)
            )
            assert (mask != other.instance.mask(size_hw)).mean() < 1e-3
            assert one.class_probability == pytest.approx(
                other.class_probability, abs=1e-3
            )
        assert (labels.labels != classes.labels).mean() < 1e-3
        assert labels.nodata == classes.nodata
    assert exported.digest != predictor.digest


def test_an_earlier_answer_is_refined_in_its_window_as_by_torch(
    bundle: Bundle, tmp_path: Path
) -> None:
    """A click farther on takes another window, in whose pixels the earlier mask is elsewhere."""
    folder = tmp_path / "out"
    export(bundle, folder, kinds=(*CLICKS, (True, False, True)))
    predictor, model = Predictor.of_bundle(bundle), simmat_runtime.load(folder)
    refined = []
    for one in (predictor, model):
        one.set_image(picture((64, 400), seed=3))
        earlier = one.predict([(30, 20)])
        again = one.predict([(300, 20)], mask=earlier)
        assert again.low_res_window != earlier.low_res_window
        alone = one.predict([(300, 20)])
        assert not np.allclose(again.logits, alone.logits, atol=1e-2)
        refined.append(again.logits)
        with pytest.raises((ValueError, ConfigError), match="which window"):
            one.predict([(300, 20)], mask=earlier.low_res_logits)
    np.testing.assert_allclose(refined[1], refined[0], atol=1e-3)


def test_an_exported_model_survives_pickle(folder: Path) -> None:
    """As a bundle's predictor does, for pools of processes; onnxruntime's sessions do not."""
    model = simmat.load(folder, registry=EXPORT)
    model.set_image(picture())
    expected = model.predict([(40, 20)])
    copy = pickle.loads(pickle.dumps(model))
    copy.set_image(picture())
    np.testing.assert_array_equal(copy.predict([(40, 20)]).logits, expected.logits)


def test_the_command_predicts_by_what_was_exported(
    folder: Path, tmp_path: Path
) -> None:
    """Whoever has only the export has all of `simmat predict`: here a prompt, objects and classes."""
    Image.fromarray(picture()[0].clip(0, 255).astype(np.uint8)).save(tmp_path / "a.png")
    for number, asked in enumerate(
        (["--point", "40,20"], ["--everything"], ["--semantic", "--format", "labels"])
    ):
        given = [
            "predict",
            str(folder),
            str(tmp_path / "a.png"),
            *asked,
            "--out",
            str(tmp_path / f"{number}"),
        ]
        assert run(given) == 0
        assert (tmp_path / f"{number}" / "a.json").is_file()


def test_the_command_scores_what_was_exported_as_the_bundle(
    bundle: Bundle,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Scores decide what is shipped; those of the files that are shipped must not need torch's weights."""
    # by which random weights find objects
    real, loose = TiledImage.segment_everything, EverythingSettings(**LOOSE)
    monkeypatch.setattr(
        TiledImage, "segment_everything", lambda self, settings: real(self, loose)
    )
    data, out = gray_set(tmp_path / "set", train=1, val=1), tmp_path / "scores.json"
    asked = [
        "eval",
        str(folder),
        "--data",
        str(data),
        "--everything",
        "--semantic",
        "--out",
        str(out),
    ]
    assert run(asked) == 0
    said, found = capsys.readouterr().out, json.loads(out.read_text())
    assert "score the bundle" in said  # the reason for no zero-shot score
    assert "parameters" not in said
    assert found["parameters"] is None
    expected = simmat.evaluate(
        Predictor.of_bundle(bundle),
        data,
        everything=True,
        semantic=True,
        zero_shot=False,
        registry=registry(),
    )
    assert (
        found["tuned"]["everything"]["found"]
        == expected["tuned"]["everything"]["found"]
        > 0
    )
    for value, other in zip(
        figures(found["tuned"]), figures(expected["tuned"]), strict=True
    ):
        assert value == pytest.approx(other, abs=1e-3)


def figures(value: Any) -> Iterator[float]:
    """Yield the numbers of json values."""
    if isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from figures(one)
    elif isinstance(value, int | float):
        yield value


def test_what_an_exported_model_cannot_do_is_refused_in_one_line(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each says what to use instead."""
    with pytest.raises(UnknownNameError, match="no model format 'onnx'"):
        simmat.load(folder, registry=registry())
    # there may be no other
    monkeypatch.setattr("simmat.api.pick_device", lambda _: torch.device("cpu"))
    with pytest.raises(ConfigError, match="leave --device cuda out"):
        simmat.load(folder, device="cuda", registry=EXPORT)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert run(["eval", str(folder), "--data", str(tmp_path), "--device", "mps"]) == 2
    assert "leave --device mps out" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="--checkpoint"):
        simmat.load(folder, checkpoint=tmp_path, registry=EXPORT)
    loaded = load_bundle(folder, EXPORT)
    with pytest.raises(ConfigError, match="exported already"):
        export(loaded, tmp_path / "again")
    image = SensorImage.from_planes(picture(), (GRAY,))
    squashed = Predictor(loaded.model, replace(loaded.pipeline, aspect="stretch"))
    with pytest.raises(ConfigError, match="'pad'"):
        squashed.set_image(image)
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "decoder.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match="sha256"):
        simmat.load(damaged, registry=EXPORT)


def test_several_images_are_encoded_and_decoded_at_once(
    bundle: Bundle, folder: Path
) -> None:
    """A server batches requests; the number of images and prompts is not fixed."""
    encoder, decoder = (
        onnxruntime.InferenceSession(folder / f"{name}.onnx")
        for name in ("encoder", "decoder")
    )
    images = np.stack([picture(seed=1), picture(seed=2)])
    levels = encoder.run(None, {"image": images})
    feeds = dict(
        zip([output.name for output in encoder.get_outputs()], levels, strict=True)
    )
    for count, points in ((1, 1), (3, 2)):
        coords = np.full((count, points, 2), 20, np.float32)
        index = np.arange(count) % 2
        none = {
            "boxes": np.zeros((0, 4), np.float32),
            "mask_input": np.zeros((0, 1, 16, 16), np.float32),
        }
        asked = {
            "image_index": index,
            "point_coords": coords,
            "point_labels": np.ones((count, points), np.int64),
        }
        logits, iou = decoder.run(None, {**feeds, **asked, **none})
        assert logits.shape[0] == iou.shape[0] == count
        if count == 3:
            np.testing.assert_allclose(logits[0], logits[2], atol=1e-5)
            assert np.abs(logits[0] - logits[1]).max() > 1e-3


@pytest.mark.parametrize("size_hw", [(64, 64), (37, 91), (120, 128), (1, 50), (5, 3)])
@pytest.mark.parametrize("aspect", ["pad", "stretch"])
def test_pixels_reach_the_network_as_in_the_pipeline(
    size_hw: tuple[int, int], aspect: str
) -> None:
    """Resizing is written as products with matrices for the graph; it must round as torch's kernel does."""
    channels = (GRAY.with_statistics(60.0, 20.0),)
    planes = picture((120, 128))[:, : size_hw[0], : size_hw[1]]
    image = SensorImage.from_planes(planes, (GRAY,))
    expected = Pipeline(Gray(), channels, 64, aspect)(image)  # type: ignore[arg-type]
    found, content = Prepare(Gray(), (GRAY,), channels, 64, aspect)(
        torch.from_numpy(planes)[None]
    )  # type: ignore[arg-type]
    np.testing.assert_allclose(found[0], expected.planes, atol=1e-5)
    assert torch.equal(content[0], expected.content)
    logits = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0)) * 10
    frame = Letterbox(size_hw, 64, aspect)  # type: ignore[arg-type]
    masks = Masks(64, aspect)(logits, torch.tensor(size_hw))  # type: ignore[arg-type]
    np.testing.assert_allclose(masks, restore_logits(logits[None], frame)[0], atol=1e-4)


SENSORS = {
    "red-nir": (None, None),
    "sar": ({"scale": "amplitude"}, None),
    "polarization": (None, ("dolp_sin_2aolp", "s0")),
    "rgb+sar": (None, ("sar", "red")),
}


@pytest.mark.parametrize("name", SENSORS)
def test_transforms_of_sensors_are_in_the_graph(name: str) -> None:
    """Who holds an exported model has the sensor's values, not decibel or sines."""
    need_plugins("nir", "sar", "polarization")
    options, picks = SENSORS[name]
    adapter = load_plugins().modality(name, options, channels=picks)
    check_transform_of(
        adapter,
        np.random.default_rng(0).uniform(0, 1.2, (len(adapter.channels), 9, 12)),
    )


@pytest.mark.parametrize(
    "rule",
    [
        '"log"',
        '{ kind = "db", of = "power", floor = 0.2 }',
        '{ kind = "range", low = 0.1, high = 0.8 }',
    ],
)
def test_a_declared_normalization_is_in_the_graph(rule: str) -> None:
    """A sensor.toml is a sensor like any other."""
    text = 'format = 1\nname = "echo"\n[[source]]\nname = "echo"\nfiles = "*.npy"\n[[channel]]\nname = "echo"\n'
    document = tomllib.loads(
        text + f'quantity = "echo"\nunit = "1"\nnormalize = {rule}\n'
    )
    adapter = TomlModality(parse_sensor_definition(document, "sensor.toml"))
    check_transform_of(adapter, np.random.default_rng(0).uniform(-0.2, 1.2, (1, 9, 12)))


def check_transform_of(adapter: ModalityAdapter, planes: np.ndarray) -> None:
    planes = planes.astype(np.float32)
    planes[:, 2:4, 3:6] = np.nan
    planes[0, 5, 5] = 0
    image = SensorImage.from_planes(planes, adapter.channels)
    channels = tuple(
        channel.with_statistics(0.3, 0.7)
        for channel in adapter.transform(image).channels
    )
    expected = Pipeline(adapter, channels, 12)(image)
    prepare = Prepare(adapter, adapter.channels, channels, 12, "pad")
    found, _ = prepare(torch.from_numpy(planes)[None])
    np.testing.assert_allclose(found[0], expected.planes, atol=1e-4)


def test_a_sensor_without_transform_arrays_is_refused_by_name(bundle: Bundle) -> None:
    """Leaving the transform out would give masks of other values without a word."""

    class Logarithmic(Gray):
        def transform(self, image: SensorImage) -> SensorImage:
            return replace(image, data=np.log1p(image.data))

    with pytest.raises(ConfigError, match=r"'gray'.*Logarithmic.*transform_arrays"):
        check_transform(
            replace(bundle, pipeline=replace(bundle.pipeline, adapter=Logarithmic()))
        )


def test_a_model_that_differs_from_torch_is_not_written(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong model on a device far away is worse than none."""
    monkeypatch.setattr(exporting, "difference_to_torch", lambda *_: float("nan"))
    with pytest.raises(ConfigError, match="differs from torch"):
        export(bundle, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_else_stays(bundle: Bundle, tmp_path: Path) -> None:
    """--out is replaced as a whole, so it must be an export or new."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not an exported model"):
        export(bundle, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_missing_onnxruntime_is_said_with_what_to_install(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It can be missing beside an installed plugin: whoever changes to onnxruntime-gpu uninstalls it first."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for module in [
        name for name in sys.modules if name.startswith("simmat_plugin_export.")
    ]:
        if not module.endswith(".command"):
            monkeypatch.delitem(sys.modules, module)
    for arguments in (
        ["predict", str(folder), "a.png", "--everything"],
        ["export", str(folder)],
    ):
        assert run([*arguments, "--out", str(tmp_path / "out")]) == 2
        assert "pip install onnxruntime" in capsys.readouterr().err


def test_an_exported_model_is_served_where_torch_is_not(
    folder: Path, tmp_path: Path
) -> None:
    """The example runs on machines without torch and SimMAT: both are hidden from it."""
    np.save(tmp_path / "image.npy", picture())
    hidden = "import sys; sys.modules |= dict.fromkeys(('torch', 'simmat', 'scipy')); "
    code = f"""{hidden}sys.path.insert(0, {str(EXAMPLE)!r})
import json, serve, simmat_runtime, threading, urllib.request
server = serve.make_server(simmat_runtime.load({str(folder)!r}), 0)
threading.Thread(target=server.serve_forever, daemon=True).start()
body = open({str(tmp_path / "image.npy")!r}, "rb").read()
url = f"http://127.0.0.1:{{server.server_port}}/predict?point=40,20"
print(urllib.request.urlopen(url, body).read().decode())
try:
    urllib.request.urlopen(url + ",7", body)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    first, refused = done.stdout.splitlines()
    found = json.loads(first)
    assert refused.startswith("400")
    assert "point must be 2 numbers" in refused
    model = simmat_runtime.load(folder)
    model.set_image(picture())
    prediction = model.predict([(40, 20)])
    assert found["score"] == pytest.approx(prediction.score)
    inside = sum(found["mask"]["counts"][1::2])
    assert found["mask"]["size"] == [52, 83]
    assert inside == prediction.mask.sum()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8-dynamic"])
def test_the_network_can_be_halved_and_quantized(
    bundle: Bundle, precision: Precision, tmp_path: Path
) -> None:
    """Smaller files are made of the encoder's network alone; masks stay near those of torch."""
    export(bundle, tmp_path / "out", kinds=CLICKS, precision=precision)
    session = onnxruntime.InferenceSession(tmp_path / "out" / names.ENCODER)
    (level,) = session.run(None, {"image": picture()[None]})
    planes, content, _ = bundle.pipeline(SensorImage.from_planes(picture(), (GRAY,)))
    with torch.no_grad():
        expected = bundle.model.encode(planes[None], content[None]).levels[0].numpy()
    assert np.corrcoef(level.ravel(), expected.ravel())[0, 1] > 0.98
    assert not np.array_equal(level, expected)


def test_quantizing_by_calibration_needs_data(bundle: Bundle, tmp_path: Path) -> None:
    """Ranges of activations cannot be guessed."""
    with pytest.raises(ConfigError, match="--data"):
        export(bundle, tmp_path / "out", precision="int8-static")


def test_objects_are_found_by_the_settings_of_simmat() -> None:
    """The runtime writes them again, since it imports nothing of SimMAT; they must not drift apart."""
    assert asdict(simmat_runtime.Settings()) == asdict(EverythingSettings())
