"""The blocks of a run that show its pictures and the importance of channels."""

from __future__ import annotations

from collections.abc import Iterator

from simmat.data.card import class_title
from simmat.drawing.overlay import POSITIVE, WHITE, class_colour
from simmat_plugin_report.documents import Analysis, ChannelAblation, RunView
from simmat_plugin_report.page import Block, Figure, Grid, Table, Text
from simmat_plugin_report.pictures import FALSE_ALARM, HIT, MISS
from simmat_plugin_report.plots import channels_figure, figure_bytes
from simmat_plugin_report.run_scores import MAX_CLASSES, counted, mistakes_text, shown, signed

_LEGEND = (
    (HIT, "hit"),
    (MISS, "missed"),
    (FALSE_ALARM, "false alarm"),
    (WHITE, "outline of the truth"),
    (POSITIVE, "click"),
)


def prediction_blocks(found: Analysis) -> Iterator[Block]:
    """Yield pictures of predictions beside the truth."""
    if not found.examples:
        yield Text(
            "Pictures are drawn when the training ends; simmat report RUN draws those of the best bundle so far.",
            faint=True,
        )
        return
    figures = []
    for one in found.examples:
        score = one.score
        kind = f", class {class_title(score.class_id, found.class_names)}" if score.class_id is not None else ""
        words = f"{one.rank}: IoU {score.iou:.3f}, predicted {score.predicted_iou:.3f}. {score.sample}{kind}"
        figures.append(Figure(one.pictures["sensor"], f"{words}: sensor image with the click", f"{words}"))
        figures.append(
            Figure(one.pictures["error"], f"{words}: truth and error", f"{score.area} px; shown: {one.display}")
        )
    yield Grid(figures, _LEGEND, columns=2)


def dense_blocks(run: RunView, found: Analysis) -> Iterator[Block]:
    """Yield pictures of what is found without clicks."""
    if not found.dense:
        return
    figures = []
    for sample, pictures in found.dense:
        wrong = mistakes_text(found.mistakes.get(sample))
        for name, picture in pictures.items():
            words = f"{name}: {sample}" + (f"; {wrong} in the image" if name == "found objects" and wrong else "")
            figures.append(Figure(picture, words, words))
    classes = [value for value in (run.spec.dense.classes if run.spec.dense else ()) if value is not None]
    legend = [
        (class_colour(value), f"class {class_title(value, found.class_names)}") for value in classes[:MAX_CLASSES]
    ]
    if not legend:
        yield Text(
            "Each object has a colour of its own, another one where it is true and where it is found.", faint=True
        )
    yield Grid(figures, legend, columns=2)
    block = found.unprompted.get("semantic")
    by_class = block.get("iou_by_class") if isinstance(block, dict) else None
    if isinstance(by_class, dict) and by_class:
        titles = {0: "background", **found.class_names}
        rows = [(class_title(int(key), titles), shown(value)) for key, value in list(by_class.items())[:MAX_CLASSES]]
        yield Table(("class map", "IoU"), rows, 1)


def transfer_blocks(run: RunView, found: Analysis) -> Iterator[Block]:
    """Yield the planes that the transfer layer makes of an image."""
    if found.examples and not found.views:
        yield Text(f"{run.spec.mat} gives features in place of the first layer, not a picture.", faint=True)
    if not found.views:
        return
    titles = {
        "sensor": "the sensor image, as shown to people",
        "zero-shot": "what the untuned model would get",
        "mat": "what the tuned model gets",
    }
    figures = [
        Figure(
            picture, f"{titles[name]}: {one.sample}", titles[name] + (f" ({one.sample})" if name == "sensor" else "")
        )
        for one in found.views
        for name, picture in one.pictures.items()
    ]
    yield Text(
        f"{run.spec.mat} turns the sensor's {counted(len(run.spec.channels), 'channel')} into three planes, which the "
        "foundation model takes for red, green and blue. They need not look natural to be useful. Each picture is "
        "stretched from the 2nd to the 98th percentile of its three planes together."
    )
    yield Grid(figures, columns=3)


def importance_blocks(run: RunView, found: Analysis) -> Iterator[Block]:
    """Yield how the score falls without each channel."""
    if not found.ablations:
        if found.examples and len(run.spec.channels) > 1:
            yield Text(
                "Not computed at the end of so short a training; simmat report RUN scores with channels withheld.",
                faint=True,
            )
        return
    changes = [(_channels(one), one.miou - one.base, one.interval) for one in found.ablations]
    yield Figure(
        figure_bytes(channels_figure(changes), "png"),
        "Change of mIoU without each channel",
        "Bars to the left: the score falls without the channel. Lines are 95 % intervals.",
    )
    first = found.ablations[0]
    yield Text(
        f"With all channels, {counted(first.objects, 'object')} in {counted(first.images, 'image')} have a mean IoU "
        f"of {first.base:.3f}. A channel is withheld by setting it to its mean, as where nothing was measured, without "
        "training again: channels that say the same can stand in for each other.",
        faint=True,
    )
    rows = [(_channels(one), f"{one.miou:.3f}", signed((one.miou - one.base, one.interval))) for one in found.ablations]
    yield Table(("without", "mIoU", "change"), rows, 1)


def _channels(one: ChannelAblation) -> str:
    return one.channels[0] if len(one.channels) == 1 else f"{one.channels[0]} to {one.channels[-1]}"
