"""Work that nobody waits for: mask files of large images, and the ranking of images that may be labelled next."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from simmat_plugin_annotate.annotator import Annotator
from simmat_plugin_annotate.models import CancelledError

_log = logging.getLogger(__name__)

_FLUSH_S = 1.0
_IDLE_S = 2.0
"""Seconds without an edit after which the mask file of a large image is written."""
_RANK_S = 0.5
"""Seconds between two looks for an image to rank, while there is none."""
_MAX_RANKED = 200
"""Images without labels that are ranked ahead: with a million of them it would never end."""


async def flush(annotator: Annotator) -> None:
    """Regularly write the mask files of large images that are not up to date."""
    while True:
        await asyncio.sleep(_FLUSH_S)
        await annotator.on_files(partial(annotator.folder.flush, _IDLE_S))


async def rank(annotator: Annotator) -> None:
    """Rank images without labels while a tab is open, so that the next one is known when it is asked for."""
    service = annotator.service
    while True:
        waiting = annotator.waiting() if service.open else []
        ranked = sum(map(service.is_ranked, waiting))
        key = next((key for key in waiting if not service.is_ranked(key)), None)
        if key is None or ranked >= _MAX_RANKED:
            await asyncio.sleep(_RANK_S)
        else:
            try:
                await asyncio.get_running_loop().run_in_executor(service.rank_thread, service.uncertainty, key)
            except CancelledError:
                return
            except Exception:  # such as no memory: the others are tried
                _log.exception("%s cannot be ranked", annotator.folder.find(key).id)
