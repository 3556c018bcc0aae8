"""Draw pictures of a network's results: predictions, output of the transfer layer, objects without clicks."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image

from simmat.bundle import Bundle
from simmat.data.augment import cut_image, cut_label
from simmat.data.dataset import Dataset
from simmat.data.instances import Annotation, Instance, class_map, region_from_mask
from simmat.data.pipeline import Pipeline, PreparedImage, restore_logits
from simmat.data.samples import Sample, evenly_spaced
from simmat.drawing.display import (
    PictureArray,
    display_channels,
    display_rgb,
    display_style,
    stretch,
)
from simmat.drawing.found import draw_classes, draw_objects
from simmat.drawing.overlay import (
    WHITE,
    Canvas,
    Colour,
    draw_overlay,
    paint_regions,
    region_colours,
    region_map,
    scaled,
)
from simmat.evaluation import MAX_CLICKS, ObjectScore
from simmat.model import SimMAT
from simmat.model_spec import DenseSpec
from simmat.predictor import (
    EncodedImage,
    EverythingSettings,
    Predictor,
    encode_image,
    find_objects,
)
from simmat.types import BoolArray, Channel, Prompt, SensorImage, Window
from simmat_plugin_report.documents import ExamplePrediction, Pictures, Rank
from simmat_plugin_report.scores import plural

PICTURES = 6
"""Number of objects whose predictions are shown: two each of the best, the median and the worst."""
TRAINING_PICTURES = 4
"""Number of training images whose labels are shown."""
_PICTURE_PX = 320
"""Longer side of a picture on the page."""
_QUALITY = 88


def pick_examples(scores: Sequence[ObjectScore]) -> list[tuple[Rank, ObjectScore]]:
    """Return two objects each of the best, the median and the worst, best first."""
    ranked = sorted(scores, key=lambda score: -score.iou)
    last = len(ranked) - 1
    wanted: dict[Rank, tuple[int, int]] = {
        "best": (0, 1),
        "worst": (last, last - 1),
        "median": (last // 2, last // 2 + 1),
    }
    ranks: dict[int, Rank] = {}
    for rank, places in wanted.items():
        for place in places:
            if 0 <= place <= last:
                ranks.setdefault(place, rank)
    return [(ranks[place], ranked[place]) for place in sorted(ranks)]


def draw_examples(
    bundle: Bundle,
    pipeline: Pipeline,
    dataset: Dataset,
    by_id: Mapping[str, Sample],
    chosen: Sequence[tuple[Rank, ObjectScore]],
    untuned: SimMAT | None,
) -> tuple[tuple[ExamplePrediction, ...], tuple[Pictures, ...], tuple[Pictures, ...]]:
    """Encode the image of each chosen object once, and draw the results of the network.

    Args:
        pipeline: the pipeline with which the objects were scored.
        untuned: the untuned model, whose predictions are drawn beside.
    """
    examples: dict[int, ExamplePrediction] = {}
    views: list[Pictures] = []
    dense: list[Pictures] = []
    for name in dict.fromkeys(score.sample for _, score in chosen):
        places = [
            place for place, (_, score) in enumerate(chosen) if score.sample == name
        ]
        image = dataset.image(by_id[name])
        label = dataset.label(by_id[name], image)
        prepared = pipeline(image)
        encoded = encode_image(bundle.model, prepared, bundle.spec.dense)
        before = None if untuned is None else encode_image(untuned, prepared)
        for place in places:
            examples[place] = _example(*chosen[place], image, label, encoded, before)
        if len(views) < PICTURES // 2 and bundle.model.output != "features":
            views.append((name, _view(bundle, image, encoded.prepared)))
        if bundle.spec.dense is not None and len(dense) < PICTURES // 2:
            first = label.regions[chosen[places[0]][1].region].window
            # without clicks, use the pipeline of prediction
            if pipeline is not bundle.pipeline:
                encoded = encode_image(
                    bundle.model, bundle.pipeline(image), bundle.spec.dense
                )
            dense.append(
                (
                    name,
                    _dense(
                        bundle, dataset, bundle.spec.dense, image, label, encoded, first
                    ),
                )
            )
    return (
        tuple(examples[place] for place in sorted(examples)),
        tuple(views),
        tuple(dense),
    )


def _example(
    rank: Rank,
    score: ObjectScore,
    image: SensorImage,
    label: Annotation,
    encoded: EncodedImage,
    before: EncodedImage | None,
) -> ExamplePrediction:
    region = label.regions[score.region]
    truth = region.mask(label.size_hw)
    # a click can be left of the centre of the first pixel
    x, y = (max(value, 0.0) for value in score.click_xy)
    mask = _clicked(encoded, x, y)
    found = region_from_mask(mask, None)
    box = (
        region.window
        if found is None or found.area >= 4 * region.area
        else region.window.enclosing(found.window)
    )
    window = close_up(box, image.size_hw)
    (height, width), inside = window.size_hw, window.slices
    xy = (
        min(max(x - window.x0, 0.0), width - 1.0),
        min(max(y - window.y0, 0.0), height - 1.0),
    )
    click, picture, size_wh = (
        Prompt.points([xy]),
        display_rgb(image)[inside],
        picture_wh(width, height),
    )

    def compared(mask: BoolArray) -> bytes:
        ignore = label.ignore[inside]
        return jpeg(
            draw_comparison(
                picture,
                truth[inside],
                mask[inside],
                click,
                ignore=ignore,
                size_wh=size_wh,
            )
        )

    return ExamplePrediction(
        rank=rank,
        score=score,
        display=describe_display(image.channels),
        sensor=jpeg(draw_overlay(picture, None, click, size_wh=size_wh)),
        error=compared(mask),
        untuned=None if before is None else compared(_clicked(before, x, y)),
    )


def _clicked(encoded: EncodedImage, x: float, y: float) -> BoolArray:
    """Return the (H, W) mask of one click."""
    logits = encoded.decode([Prompt.points([(x, y)])]).logits[:, :1].float()
    mask: BoolArray = (
        (restore_logits(logits, encoded.prepared.letterbox)[0, 0] > 0).cpu().numpy()
    )
    return mask


def describe_display(channels: Sequence[Channel]) -> str:
    """Describe what `display_rgb` shows, as "thermal [K], inferno" or "nir, red, green as R, G, B"."""
    shown = display_channels(channels)
    if len(shown) == 1:
        channel, look = channels[shown[0]], display_style(channels[shown[0]])
        return f"{channel.name} [{look.unit}], {'grey' if look.colours == 'gray' else look.colours}"
    return ", ".join(channels[index].name for index in shown) + " as R, G, B"


def close_up(box: Window, size_hw: tuple[int, int]) -> Window:
    """Return the window of an image that shows an object in its surroundings."""
    side = max(3 * max(box.size_hw), max(size_hw) // 3, min(64, *size_hw))
    return _around(box, side, size_hw)


def _around(box: Window, side: int, size_hw: tuple[int, int]) -> Window:
    """Return a window of an image around the middle of a box, of a side in pixels or as large as the image."""
    height, width = (min(side, extent) for extent in size_hw)
    y0 = min(max((box.y0 + box.y1 - height) // 2, 0), size_hw[0] - height)
    x0 = min(max((box.x0 + box.x1 - width) // 2, 0), size_hw[1] - width)
    return Window(y0, x0, y0 + height, x0 + width)


def picture_wh(width: int, height: int) -> tuple[int, int]:
    """Return (width, height) scaled so that the longer side is `_PICTURE_PX`."""
    scale = _PICTURE_PX / max(height, width)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def jpeg(picture: Image.Image) -> bytes:
    """Return a picture as a JPEG file."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format="JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _fitted(picture: PictureArray) -> bytes:
    return jpeg(
        draw_overlay(picture, size_wh=picture_wh(picture.shape[1], picture.shape[0]))
    )


def _view(
    bundle: Bundle, image: SensorImage, prepared: PreparedImage
) -> dict[str, bytes]:
    """Draw the three planes that the foundation model gets in place of red, green and blue."""
    model, device = bundle.model, next(bundle.model.parameters()).device
    with torch.inference_mode():
        planes, content = (
            prepared.planes[None].to(device),
            prepared.content[None].to(device),
        )
        planes_seen = (
            model.mat(planes)
            if model.output == "image"
            else model.mat(planes, content)[0]
        )
        fixed = torch.einsum(
            "kc,bchw->bkhw", torch.tensor(bundle.spec.zero_shot, device=device), planes
        )
    height, width = prepared.letterbox.scaled_hw
    mean, std = (
        np.asarray(numbers, np.float32)[:, None, None]
        for numbers in (
            bundle.parts.foundation.pixel_mean,
            bundle.parts.foundation.pixel_std,
        )
    )
    drawn = {"the sensor image, as displayed": _fitted(display_rgb(image))}
    for title, tensor in (
        ("input of the untuned model", fixed),
        ("input of the tuned model", planes_seen),
    ):
        values = (
            tensor[0, :, :height, :width].float().cpu().numpy() * std + mean
        ).astype(np.float32)
        # (1, 3 * height * width): stretched together, to keep colours
        flat = values.reshape(1, -1)
        stretched = stretch(flat, np.isfinite(flat)).reshape(values.shape)
        drawn[title] = _fitted(
            np.rint(stretched * 255).astype(np.uint8).transpose(1, 2, 0)
        )
    return drawn


def _dense(
    bundle: Bundle,
    dataset: Dataset,
    dense: DenseSpec,
    image: SensorImage,
    label: Annotation,
    encoded: EncodedImage,
    box: Window,
) -> dict[str, bytes]:
    """Draw the results without prompts besides the ground truth; for a large image in a window around a box."""
    side = Predictor.of_bundle(bundle).tile_size(image.size_hw)
    if side < max(image.size_hw):
        window = _around(box, side, image.size_hw)
        image, label = cut_image(image, window), cut_label(label, window, keep=0)
        encoded = encode_image(bundle.model, bundle.pipeline(image), dense)
    picture = display_rgb(image)

    def drawn(objects: Sequence[Instance]) -> bytes:
        return _fitted(np.asarray(draw_objects(picture, objects, image.size_hw)))

    # In front is the object with the highest score; for ground truth, as in the class map, the smallest.
    best_first = find_objects(encoded, EverythingSettings(max_clicks=MAX_CLICKS))
    found = {
        "true objects": drawn(sorted(label.regions, key=lambda region: region.area)),
        "found objects": drawn([one.instance for one in best_first]),
    }
    if dataset.has_classes and (chances := encoded.class_map()) is not None:
        maps = {
            "true classes": class_map(label),
            "class map": np.asarray(dense.label_values)[chances.argmax(axis=0)],
        }
        for title, labels in maps.items():
            found[title] = _fitted(
                np.asarray(
                    draw_classes(picture, labels, (0,) if dense.background else ())
                )
            )
    return found


def draw_training_labels(
    dataset: Dataset, samples: Sequence[Sample]
) -> tuple[Pictures, ...]:
    """Draw the outlines of the labels of some training images, spread evenly, around their largest object."""
    drawn: list[Pictures] = []
    for sample in evenly_spaced(samples, TRAINING_PICTURES):
        image = dataset.image(sample)
        label = dataset.label(sample, image)
        largest = max(label.regions, key=lambda region: region.area)
        window = close_up(largest.window, image.size_hw)
        shown = cut_label(label, window, keep=0)
        height, width = window.size_hw
        picture = scaled(display_rgb(image)[window.slices], picture_wh(width, height))
        numbers = region_map(shown.regions, shown.size_hw, picture.size)
        outlined = paint_regions(
            np.asarray(picture),
            numbers,
            region_colours(shown.regions),
            fill=0,
            line_px=2,
        )
        words = plural(len(label.regions), "object")
        if len(shown.regions) < len(label.regions):
            words = f"{len(shown.regions)} of {words}"
        if sample.predicted:
            words += ", labelled by a model"
        drawn.append((sample.id, {words: jpeg(Image.fromarray(outlined))}))
    return tuple(drawn)


# Okabe and Ito (2008): distinct under every common colour blindness; drawn over grey.
HIT: Colour = (86, 180, 233)
MISS: Colour = (230, 159, 0)
FALSE_ALARM: Colour = (204, 94, 167)

_ALPHA = 0.6


def draw_comparison(
    picture: PictureArray,
    truth: BoolArray,
    prediction: BoolArray,
    prompt: Prompt | None = None,
    *,
    ignore: BoolArray | None = None,
    size_wh: tuple[int, int] | None = None,
) -> Image.Image:
    """Draw hits, misses and false alarms of a prediction over the picture in grey.

    Args:
        picture: (H, W, 3) uint8.
        truth: (H, W) bool.
        prediction: (H, W) bool.
        prompt: drawn on top, in pixels of the picture.
        ignore: (H, W) bool, True where nothing is scored; not coloured.
        size_wh: as for `draw_overlay`.

    Raises:
        DataError: a mask and the picture differ in size.
    """
    canvas = Canvas(picture, size_wh)
    canvas.image = canvas.image.convert("L").convert("RGB")
    true, found = canvas.scaled(truth), canvas.scaled(prediction)
    scored = np.True_ if ignore is None else ~canvas.scaled(ignore)
    for region, colour in (
        (true & found, HIT),
        (true & ~found, MISS),
        (found & ~true, FALSE_ALARM),
    ):
        canvas.tint(region & scored, colour, _ALPHA)
    canvas.outline(true, WHITE)
    if prompt is not None:
        canvas.mark(prompt)
    return canvas.image
