"""How a modality refuses files that are missing, cut short, or of another kind."""

from __future__ import annotations

from pathlib import Path

from simmat.errors import SimMATError
from simmat.testing.checks import CheckFailed
from simmat.testing.samples import ModalityCase

_CUTS = (0.0, 0.5, 0.9)
_NO_IMAGE = b"This is a line of plain text, and no sensor wrote it.\n" * 40


def missing_files_are_refused(case: ModalityCase) -> None:
    """A missing file raises a SimMAT error that names its path."""
    for source in case.adapter.source_names():
        files = case.copy(case.samples[0], f"missing {source}")
        files[source].unlink()
        _expect_refusal(case, files, source, "missing")


def truncated_files_are_refused(case: ModalityCase) -> None:
    """A file that was cut short raises a SimMAT error that names its path."""
    for source in case.adapter.source_names():
        for cut in _CUTS:
            files = case.copy(case.samples[0], f"cut {source} {cut}")
            whole = files[source].read_bytes()
            files[source].write_bytes(whole[: int(len(whole) * cut)])
            _expect_refusal(case, files, source, f"cut to {cut:.0%} of its {len(whole)} bytes")


def wrong_files_are_refused(case: ModalityCase) -> None:
    """A file of another kind under the right name raises a SimMAT error that names its path."""
    for source in case.adapter.source_names():
        files = case.copy(case.samples[0], f"wrong {source}")
        files[source].write_bytes(_NO_IMAGE)
        _expect_refusal(case, files, source, "plain text under the sensor's ending")


def _expect_refusal(case: ModalityCase, files: dict[str, Path], source: str, state: str) -> None:
    path = files[source]
    try:
        image = case.adapter.load(files)
    except SimMATError as error:
        if str(path) not in str(error):
            raise CheckFailed(
                f"source {source!r} was {state}; the error does not name {path.name!r}: {error}",
                'begin the message with the path: raise DataError(f"{path}: …")',
            ) from error
    except Exception as error:
        raise CheckFailed(
            f"source {source!r} was {state}; load raised {type(error).__name__}: {error}",
            "catch what your library raises and raise simmat.errors.DataError with the path",
        ) from error
    else:
        raise CheckFailed(
            f"source {source!r} was {state}; load returned an image of {image.data.shape} all the same",
            "check the size of the file and what its header says, and raise simmat.errors.DataError",
        )
