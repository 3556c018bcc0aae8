"""Score the baselines of masks without prompts: a U-Net trained on the same items, and Otsu's threshold with watershed.

    python benchmarks/dense_baselines.py --out DIR [--on nir-crops …] [--seeds 0 …] [--steps N] [--test]

The data sets, the items of every step, the losses and the schedule are those of the arm "both heads" in dense.toml.
The steps are too, unless --steps gives their number. The network is segmentation_models_pytorch's U-Net on the encoder
of `lite`, from the same ImageNet weights, with class logits and the distance map of the dense head as outputs; objects
are cut out of its class map by a watershed from the peaks of the distance map. Validation chooses the step, the
learning rate, and what the watershed is set to. Each run writes SET/seed-N_lr-R.json; --test reads the test split once,
with the best rate of each data set.
Needs simmat-plugin-bench, -lite and -unet, and scikit-image (pip install scikit-image).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import segmentation_models_pytorch as smp
import torch
from measuring import parser_of
from scipy import ndimage
from simmat_plugin_bench.grid import expand
from simmat_plugin_bench.settings import read_settings
from simmat_plugin_unet.model import ENCODER, load_encoder
from simmat_plugin_unet.spec import UNET
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.segmentation import watershed
from torch import Tensor, nn
from torch.utils.data import default_collate

from simmat.config import TrainConfig
from simmat.data.instances import Annotation, FoundObject, region_from_mask
from simmat.data.pipeline import restore_logits
from simmat.data.samples import Sample
from simmat.evaluation import EvalRequest, evaluate
from simmat.evaluation.unprompted import ImageMatches, object_scores
from simmat.foundation import ImageEmbedding
from simmat.io.files import atomic_write_json
from simmat.model import SimMAT
from simmat.model_spec import DenseSpec
from simmat.nn.dense_head import OBJECTS, DenseAnswer
from simmat.nn.first_layer import refitted, widened_kernel
from simmat.nn.losses import dense_loss
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import Registry
from simmat.predictor import (
    EncodedImage,
    EverythingSettings,
    Predictor,
    tiled_image,
)
from simmat.predictor.encoded import embed
from simmat.training.plan import TrainingPlan, plan_run
from simmat.training.step import build_optimizer, learning_rate, set_rates
from simmat.types import BoolArray, FloatArray, ImageReader, SensorImage

BENCH = Path(__file__).with_name("dense.toml")
ARM = "both heads"
CHANNELS = 16
"""Of the U-Net's last feature map, segmentation_models_pytorch's default."""


@dataclass(frozen=True)
class Watershed:
    """How objects are cut out of a foreground.

    Attributes:
        foreground: smallest probability of an object's pixel.
        peak: smallest value of the distance map at a seed, as a part of its largest possible value.
        gap: smallest distance of two seeds in pixels.
        blur: standard deviation of the Gaussian over image (Otsu) or distance map, in pixels.
    """

    foreground: float = 0.5
    peak: float = 0.35
    gap: int = 5
    blur: float = 1.0

    @staticmethod
    def candidates() -> Iterator[Watershed]:
        """Yield what validation chooses from for the U-Net."""
        for foreground, peak, gap, blur in product(
            (0.3, 0.5), (0.1, 0.2, 0.35), (5, 8, 12), (1.0, 2.0)
        ):
            yield Watershed(foreground, peak, gap, blur)

    @staticmethod
    def candidates_of_otsu() -> Iterator[Watershed]:
        """Yield what validation chooses from for Otsu's threshold, whose distances are in pixels."""
        for gap, blur in product((3, 5, 7, 10, 15), (0.5, 1.0, 2.0)):
            yield Watershed(0, 0, gap, blur)

    def objects(
        self, inside: BoolArray, distance: FloatArray, score: FloatArray
    ) -> list[FoundObject]:
        """Cut a foreground into objects; the score of each is the mean of a map over its pixels.

        Args:
            inside: (H, W), the foreground.
            distance: (H, W), its peaks are the seeds.
            score: (H, W) in 0..1.
        """
        parts = ndimage.label(inside)[0]
        seeds = peak_local_max(
            distance, self.gap, self.peak, exclude_border=False, labels=parts
        )
        markers = np.zeros(inside.shape, np.int32)
        markers[tuple(seeds.T)] = np.arange(1, len(seeds) + 1)
        labels = watershed(-distance, markers, mask=inside)
        found = []
        for number, place in enumerate(ndimage.find_objects(labels), start=1):
            mask = labels[place] == number if place is not None else None
            region = (
                None
                if mask is None
                else region_from_mask(mask, None, (place[0].start, place[1].start))
            )
            if region is not None:
                y, x = seeds[number - 1].tolist()
                found.append(
                    FoundObject(region, float(score[place][mask].mean()), (x, y))
                )
        return found


class UNetBackbone(nn.Module):
    """The U-Net without its last layer: (B, C, S, S) -> one level (B, 16, S, S)."""

    def __init__(self, channels: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            unet = smp.Unet(ENCODER, encoder_weights=None, in_channels=3, classes=1)
        assert UNET.weights is not None
        assert UNET.weights.path is not None
        load_encoder(unet.encoder.model, UNET.weights.path)
        stem = unet.encoder.model.conv_stem
        unet.encoder.model.conv_stem = refitted(
            stem, widened_kernel(stem, channels), None
        )
        self.encoder, self.decoder = unet.encoder, unet.decoder
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def embed(self, image: Tensor) -> Tensor:
        """Return the image as it is."""
        return image.contiguous(memory_format=torch.channels_last)

    def encode(self, features: Tensor) -> ImageEmbedding:
        """Return the decoder's last feature map."""
        return ImageEmbedding((self.decoder(self.encoder(features)),), (1,))


class UNetHead(nn.Module):
    """The last layer, with K classes, the first of which is the background, and the distance."""

    def __init__(self, classes: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed + 1)
            self.last = nn.Conv2d(CHANNELS, classes + 1, 3, padding=1)
            # as segmentation_models_pytorch does
            nn.init.xavier_uniform_(self.last.weight)
        odds = math.log((1 - OBJECTS) / OBJECTS)  # it starts where the dense head does
        bias = torch.zeros(classes + 1)
        bias[0], bias[-1] = odds + math.log(classes - 1), -odds
        self.last.bias = nn.Parameter(bias)

    def forward(self, embedding: ImageEmbedding) -> DenseAnswer:
        """Answer for every image of an embedding."""
        logits = self.last(embedding.levels[0]).float()
        return DenseAnswer(logits[:, :-1], logits[:, -1:])


class _Foundation(nn.Module):
    def __init__(self, backbone: UNetBackbone) -> None:
        super().__init__()
        self.backbone = backbone


class Measured(nn.Module):
    """The planes themselves, 0 on padding; the U-Net's first convolution takes all of them."""

    def forward(self, planes: Tensor, content: Tensor) -> Tensor:
        """Return (B, C, S, S)."""
        inside = planes * content[:, None]
        return inside.contiguous(memory_format=torch.channels_last)


def unet_of(spec: DenseSpec, channels: int, seed: int) -> SimMAT:
    """Return the U-Net as a network without prompts."""
    foundation: Any = _Foundation(UNetBackbone(channels, seed))
    head: Any = UNetHead(spec.count, seed)
    return SimMAT(Measured(), foundation, "features", head)


@dataclass(frozen=True, eq=False)
class WatershedImage(EncodedImage):
    """An image whose objects are found by a watershed on the U-Net's maps."""

    @cached_property
    def maps(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(K, H, W) probabilities of classes, (H, W) of any object, and the (H, W) distance."""
        chances = self.class_map()
        assert chances is not None
        assert self.dense_answer is not None
        with torch.inference_mode():
            distance = (
                restore_logits(self.dense_answer.distance, self.prepared.letterbox)[
                    0, 0
                ]
                .sigmoid()
                .numpy()
            )
        return chances, 1 - chances[0], distance

    def objects(self, rule: Watershed, min_area: int) -> list[FoundObject]:
        """Find every object, best first."""
        chances, foreground, distance = self.maps
        found = rule.objects(
            foreground > rule.foreground, gaussian(distance, rule.blur), foreground
        )
        found = [
            _with_class(one, chances, self.dense_spec)
            for one in found
            if one.instance.area >= min_area
        ]
        return sorted(found, key=lambda one: -one.score)


def _with_class(
    one: FoundObject, chances: FloatArray, spec: DenseSpec | None
) -> FoundObject:
    """Give an object the class of the map over its pixels."""
    if spec is None or spec.classes == (None,):
        return one
    y0, x0, y1, x1 = one.instance.window
    mean = chances[1:, y0:y1, x0:x1][:, one.instance.crop].mean(axis=1)
    value, chance = (
        spec.classes[int(mean.argmax())],
        float(mean.max() / max(mean.sum(), 1e-6)),
    )
    return replace(
        one, instance=replace(one.instance, class_id=value), score=one.score * chance
    )


class WatershedPredictor(Predictor):
    """Finds objects by a watershed; all else, windows of large images too, is as in `Predictor`.

    Attributes:
        rule: how objects are cut out.
        kept: what was encoded, as many settings are tried on it.
    """

    rule = Watershed()
    kept: dict[bytes, WatershedImage]

    def encode(
        self, image: SensorImage, reader: ImageReader, cache_folder: Path | None = None
    ) -> EncodedImage:
        """Encode an image, or a part of one; no file keeps it."""
        self.kept = getattr(self, "kept", {})
        key = image.data.tobytes()
        if key not in self.kept:
            prepared = self.pipeline(image)
            embedding = embed(self.model, prepared.planes[None], prepared.content[None])
            self.kept[key] = WatershedImage(self.model, prepared, embedding, self.dense)
        return self.kept[key]

    def find(
        self, encoded: EncodedImage, settings: EverythingSettings
    ) -> list[FoundObject]:
        """Find every object of a window, best first, in place of `find_objects`."""
        assert isinstance(encoded, WatershedImage)
        return encoded.objects(self.rule, settings.min_area)


def scores(
    predictor: WatershedPredictor,
    setup: TrainingPlan,
    samples: Sequence[Sample],
    *,
    everything: bool = True,
) -> dict[str, Any]:
    """Return the scores of every object, and of the class map where there are classes."""
    with mock.patch.object(tiled_image, "find_objects", predictor.find):
        found = evaluate(
            predictor,
            setup.dataset,
            samples,
            request=EvalRequest(
                protocol=None, everything=everything, semantic=setup.dataset.has_classes
            ),
        )
    assert found.unprompted is not None
    return found.unprompted.summary()


def choosing(found: dict[str, Any], setup: TrainingPlan) -> float:
    """Return the score by which validation chooses: mIoU of the class map where there are classes, else AP50."""
    return float(
        found["semantic"]["miou"]
        if setup.dataset.has_classes
        else found["everything"]["ap50"]
    )


def train(
    setup: TrainingPlan, rate: float, log: Callable[[str], object]
) -> tuple[SimMAT, dict[str, Any]]:
    """Train a U-Net on the items of a run; returns its best state by validation, and what that scored."""
    config, spec = setup.config, setup.spec
    assert spec.dense is not None
    model = unet_of(spec.dense, len(spec.channels), config.seed)
    optimizer = build_optimizer(model, weight_decay=config.weight_decay)
    items, size = setup.items(), config.batch_size
    half = config.precision == "bf16"
    best: tuple[float, dict[str, Tensor], dict[str, Any]] | None = None
    start = time.process_time()
    for step in range(setup.steps):
        batch = default_collate(
            [items[position] for position in range(step * size, (step + 1) * size)]
        )
        set_rates(
            optimizer,
            learning_rate(
                step,
                peak=rate,
                steps=setup.steps,
                warmup=setup.warmup,
                schedule=config.schedule,
            ),
        )
        model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            answer = model.dense(model.encode(batch.planes, batch.content))  # type: ignore[misc]
            loss = dense_loss(answer, batch.class_targets, batch.distance)[0]
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % setup.val_every == 0 or step + 1 == setup.steps:
            found = scores(
                WatershedPredictor(
                    model,
                    setup.pipeline,
                    dense=spec.dense,
                    image_side=setup.spec.image_side,
                    takes_windows=bool(setup.spec.card.crop),
                ),
                setup,
                setup.val,
                everything=not setup.dataset.has_classes,
            )
            log(
                f"step {step + 1}: loss {loss.item():.3f}, {choosing(found, setup):.4f}"
            )
            if best is None or choosing(found, setup) > best[0]:
                state = {
                    name: tensor.clone() for name, tensor in model.state_dict().items()
                }
                best = choosing(found, setup), state, {**found, "step": step + 1}
    assert best is not None
    model.load_state_dict(best[1])
    return model.eval(), {**best[2], "cpu_s": time.process_time() - start}


def best_watershed(predictor: WatershedPredictor, setup: TrainingPlan) -> Watershed:
    """Return the settings of highest AP50 on the validation split."""

    def ap50(rule: Watershed) -> float:
        predictor.rule = rule
        return float(scores(predictor, setup, setup.val)["everything"]["ap50"])

    return max(Watershed.candidates(), key=ap50)


def _objects(
    found: Iterator[tuple[list[FoundObject], Annotation]],
) -> dict[str, float | None]:
    images = [ImageMatches.of(objects, label) for objects, label in found]
    return object_scores([image.without_classes() for image in images])


def otsu_objects(plane: npt.NDArray[np.float32], rule: Watershed) -> list[FoundObject]:
    """Cut what is brighter than Otsu's threshold at the peaks of its distance transform; brighter is better."""
    smooth = gaussian(plane, rule.blur, preserve_range=True)
    inside = smooth > threshold_otsu(smooth)
    distance = gaussian(ndimage.distance_transform_edt(inside), 1)
    return rule.objects(inside, distance, smooth / max(float(smooth.max()), 1e-6))


def otsu(
    setup: TrainingPlan, samples: Sequence[Sample], rule: Watershed
) -> dict[str, float | None]:
    """Score Otsu's threshold with watershed on the first channel."""

    def found() -> Iterator[tuple[list[FoundObject], Annotation]]:
        for sample in samples:
            image = setup.dataset.image(sample)
            yield otsu_objects(image.data[0], rule), setup.dataset.label(sample, image)

    return _objects(found())


def run_otsu(config: TrainConfig, registry: Registry, out: Path, *, test: bool) -> None:
    """Choose the settings of Otsu's watershed on validation, and score them."""
    setup = plan_run(config, registry)
    rule = max(
        Watershed.candidates_of_otsu(),
        key=lambda one: float(otsu(setup, setup.val, one)["ap50"] or 0),
    )
    result: dict[str, Any] = {
        "watershed": asdict(rule),
        "val": {"everything": otsu(setup, setup.val, rule)},
    }
    if test:
        result["test"] = {"everything": otsu(setup, setup.dataset.split("test"), rule)}
    out.mkdir(parents=True, exist_ok=True)
    atomic_write_json(out / "otsu.json", result)
    print(out.name, "otsu", rule, json.dumps(result), flush=True)


def run_unet(
    config: TrainConfig, rate: float, registry: Registry, out: Path, *, test: bool
) -> None:
    """Train and validate a U-Net unless that is done; with `test`, score the test split."""
    file = out / f"seed-{config.seed}_lr-{rate:g}.json"
    setup = plan_run(config, registry)
    assert setup.spec.dense is not None
    weights = file.with_suffix(".pt")
    out.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        model, val = train(
            setup, rate, lambda line: print(out.name, f"{rate:g}", line, flush=True)
        )
        predictor = WatershedPredictor(
            model,
            setup.pipeline,
            dense=setup.spec.dense,
            image_side=setup.spec.image_side,
            takes_windows=bool(setup.spec.card.crop),
        )
        rule = best_watershed(predictor, setup)
        predictor.rule = rule
        final = {
            **scores(predictor, setup, setup.val),
            "step": val["step"],
            "cpu_s": val["cpu_s"],
        }
        torch.save(model.state_dict(), weights)
        atomic_write_json(
            file,
            {"lr": rate, "seed": config.seed, "watershed": asdict(rule), "val": final},
        )
    result = json.loads(file.read_text())
    if test and "test" not in result:
        model = unet_of(setup.spec.dense, len(setup.spec.channels), config.seed)
        model.load_state_dict(torch.load(weights, weights_only=True))
        predictor = WatershedPredictor(
            model,
            setup.pipeline,
            dense=setup.spec.dense,
            image_side=setup.spec.image_side,
            takes_windows=bool(setup.spec.card.crop),
        )
        predictor.rule = Watershed(**result["watershed"])
        result["test"] = scores(predictor, setup, setup.dataset.split("test"))
        atomic_write_json(file, result)
    print(out.name, file.stem, json.dumps(result), flush=True)


def with_steps(config: TrainConfig, steps: int) -> TrainConfig:
    """Return a config of another length."""
    given = config.model_dump(exclude_unset=True)
    return TrainConfig.model_validate({**given, "steps": steps})


def best_rate(out: Path, seed: int, rates: Sequence[float], key: str) -> float:
    """Return the rate of the best validation among runs of a seed."""

    def score(rate: float) -> float:
        found = json.loads((out / f"seed-{seed}_lr-{rate:g}.json").read_text())["val"]
        block, name = key.split(".")
        return float(found[block][name])

    return max(rates, key=score)


def main() -> None:
    """Run what is asked for."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "--bench", type=Path, default=BENCH, help="the bench whose items are used"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder of the results; what is there is not run again",
    )
    parser.add_argument("--on", nargs="*", help="names of data sets; by default all")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument(
        "--lr",
        type=float,
        nargs="*",
        default=[1e-3, 3e-3, 1e-2],
        help="tried with the first seed",
    )
    parser.add_argument("--steps", type=int, help="by default those of the bench")
    parser.add_argument(
        "--test", action="store_true", help="score the test split with the best rate"
    )
    options = parser.parse_args()
    registry = load_plugins()
    cells = expand(
        read_settings(options.bench), options.bench, options.out, registry
    ).cells
    first, *others = options.seeds
    for dataset in dict.fromkeys(cell.dataset for cell in cells):
        if options.on and dataset not in options.on:
            continue
        arms = {}
        for cell in cells:
            if cell.dataset == dataset and cell.arm == ARM:
                arms[cell.seed] = cell.config
                if options.steps is not None:
                    arms[cell.seed] = with_steps(cell.config, options.steps)
        out = options.out / dataset
        for rate in options.lr:
            run_unet(arms[first], rate, registry, out, test=False)
        classes = plan_run(arms[first], registry).dataset.has_classes
        rate = best_rate(
            out, first, options.lr, "semantic.miou" if classes else "everything.ap50"
        )
        for seed in (first, *others):
            run_unet(arms[seed], rate, registry, out, test=options.test)
        if not classes:
            run_otsu(arms[first], registry, out, test=options.test)


if __name__ == "__main__":
    main()
