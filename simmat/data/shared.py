"""Images that stand in two splits: their scores would be of images trained or chosen on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from simmat.data.samples import Sample

_NAMED = 3


def shared_images(samples: Sequence[Sample], digests: Mapping[Path, str]) -> list[str]:
    """Name the images that stand in two splits, by path or by content.

    Args:
        samples: of a data set, all splits.
        digests: file -> sha256, see `simmat.data.fingerprint`; a sample whose reference file is not there is left out.

    Returns:
        A sentence for each image that stands in another split than the first one equal to it.
    """
    first: dict[str, Sample] = {}
    found = []
    for sample in samples:
        if (digest := digests.get(sample.reference)) is None:
            continue
        other = first.setdefault(digest, sample)
        if other.split != sample.split:
            found.append(
                f"the same image is in {other.split} ({other.id!r}, {other.reference.name}) and in {sample.split} "
                f"({sample.id!r}, {sample.reference.name})"
            )
    return found


def shared_warning(root: Path, samples: Sequence[Sample], digests: Mapping[Path, str]) -> str:
    """Return one warning for what `shared_images` finds in the data set in `root`; "" where that is nothing."""
    found = shared_images(samples, digests)
    if not found:
        return ""
    more = f"; and {len(found) - _NAMED} more, see `simmat data check`" if len(found) > _NAMED else ""
    count = "1 image" if len(found) == 1 else f"{len(found)} images"
    return (
        f"Warning: {count} of {root} in two splits, so that scores are of images that were trained or chosen on; keep "
        f"each in one: {'; '.join(found[:_NAMED])}{more}"
    )
