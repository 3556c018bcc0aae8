"""Read images and masks again for problems that no single file shows; each is a guess with its evidence.

This is not part of the first pass over the data, because training waits for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from simmat.data.index import DataIndex
from simmat.data.samples import SPLITS, Sample, evenly_spaced
from simmat.errors import SimMATError
from simmat.types import FloatArray
from simmat_plugin_report.data_report import Finding, finding
from simmat_plugin_report.mask_alignment import MIN_Z, Fit, mask_fit, offset_of_all, outliers, shrink
from simmat_plugin_report.near_duplicates import MIN_CORRELATION, Pairs, near_duplicates, thumbnail

MAX_COMPARED = 4000
"""Most images that are compared with each other; those of val and test first."""
MAX_ALIGNED = 400
"""Most images whose masks are checked."""


def second_look(index: DataIndex, progress: Callable[[int], object] | None = None) -> Iterator[Finding]:
    """Look for near-duplicates in different splits and for misaligned masks.

    Args:
        index: index of the data set; samples that cannot be read are left out.
    """
    samples = sample_subset(index)
    digests = dict(zip((sample.id for sample in index.dataset.samples), index.reference_digests(), strict=True))
    every = -(-len(samples) // MAX_ALIGNED)
    thumbs: list[FloatArray] = []
    seen: list[Sample] = []
    fits: list[tuple[Sample, Fit]] = []
    for number, sample in enumerate(samples):
        try:
            image = shrink(index.dataset.adapter.transform(index.dataset.image(sample)))
            fit = mask_fit(image, index.dataset.label(sample)) if number % every == 0 else None
        except SimMATError:  # changed since the index was made
            continue
        finally:
            if progress is not None:
                progress(1)
        thumbs.append(thumbnail(image.planes, image.valid))
        seen.append(sample)
        if fit is not None:
            fits.append((sample, fit))
    if pairs := near_duplicates(seen, thumbs, digests):
        yield _near_duplicates(pairs, len(seen))
    yield from _misaligned(fits)


def sample_subset(index: DataIndex) -> list[Sample]:
    """Return the samples to compare, each image once: at most `MAX_COMPARED`, evenly spread in train and the rest."""
    once: dict[object, Sample] = {}
    for sample in index.dataset.samples:
        if sample.id not in index.faults:
            once.setdefault((sample.images, sample.window), sample)
    train = [sample for sample in once.values() if sample.split == "train"]
    rest = [sample for sample in once.values() if sample.split != "train"]
    rest = list(evenly_spaced(rest, max(MAX_COMPARED // 2, MAX_COMPARED - len(train))))
    return [*evenly_spaced(train, MAX_COMPARED - len(rest)), *rest]


def _near_duplicates(pairs: Pairs, compared: int) -> Finding:
    held_out = {sample.id: sample.split for _, *pair in pairs for sample in pair if sample.split != "train"}
    plural, verb = ("", "s") if len(held_out) == 1 else ("s", "")
    first = "; ".join(
        f"{one.id!r} ({one.split}) and {other.id!r} ({other.split}), {alike:.2f}" for alike, one, other in pairs[:3]
    )
    text = (
        f"{len(held_out)} image{plural} of {' and '.join(sorted(set(held_out.values())))} nearly show{verb} what "
        f"an image of another split shows, so scores are too good: {first}"
        + ("; --json lists all" if len(pairs) > 3 else "")
        + f". Found by the correlation of the fine structure of {compared} images, shrunk, in every flip and "
        f"rotation (threshold {MIN_CORRELATION}); view some before you move them to one split"
    )
    ids = tuple((one.id, other.id) for _, one, other in pairs)
    return finding("warning", "near-duplicates", text, sorted({name for pair in ids for name in pair}), ids)


def _misaligned(fits: Sequence[tuple[Sample, Fit]]) -> Iterator[Finding]:
    found = False
    for split in SPLITS:
        offset = offset_of_all([fit for sample, fit in fits if sample.split == split])
        if offset is None:
            continue
        found = True
        text = (
            f"{split}: the masks fit the edges of their images better {offset.what}: there the edges under their "
            f"outlines are {offset.there:.1f} standard deviations stronger than elsewhere, here {offset.in_place:.1f}; "
            f"so in {offset.share:.0%} of the images, {offset.z_score:.0f} standard errors beyond chance (threshold "
            f"{MIN_Z}). Check how images and masks were exported"
        )
        yield finding("warning", "misaligned-masks", text)
    odd = [] if found else list(outliers(fits))
    if odd:
        words = "; ".join(
            f"{sample.id!r} {offset.what} ({offset.there:.1f} there, {offset.in_place:.1f} here)"
            for sample, offset in odd[:3]
        )
        text = (
            f"{len(odd)} of {len(fits)} masks would fit the edges of their image better elsewhere, although the "
            f"others fit: {words}, in standard deviations of the strength of edges. This is a guess, so check them"
        )
        yield finding("note", "misaligned-masks", text, [sample.id for sample, _ in odd])
