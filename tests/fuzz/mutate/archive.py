"""Damage to a zip: what its members hold, are called and claim to be."""

from __future__ import annotations

import io
import random
import stat
import warnings
import zipfile
from collections.abc import Callable

from fuzz.mutate.raw import mutate_bytes

Mutation = Callable[[bytes, random.Random], bytes]

ESCAPED = "escaped"
"""Name of a file that a path in a zip would put outside of the folder it is unpacked into."""
_KINDS = (stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o644, stat.S_IFDIR | 0o755, stat.S_IFBLK | 0o644)


def mutate_zip(content: bytes, rng: random.Random, mutate_member: Mutation = mutate_bytes) -> bytes:
    """Return a zip with one member changed, renamed or missing, with one more, or with changed bytes.

    Args:
        content: a zip.
        rng: decides what is done.
        mutate_member: damages the content of a member: (bytes, rng) -> bytes.
    """
    if rng.random() < 0.35:
        return mutate_bytes(content, rng)
    source, target = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    victim, kind = rng.choice(source.namelist()), rng.randrange(9)
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with warnings.catch_warnings(), zipfile.ZipFile(target, "w", method) as archive:
        warnings.simplefilter("ignore")  # a name that stands twice
        for name in source.namelist():
            _copy(archive, name, source.read(name), kind if name == victim else -1, rng, mutate_member)
        if kind == 7:
            archive.writestr(rng.choice((victim, "x", f"../{ESCAPED}", "bundle.json ", "./bundle.json")), b"x")
        if kind == 8:
            archive.comment = bytes(65_535)
    damaged = target.getvalue()
    return mutate_bytes(damaged, rng, 1) if rng.random() < 0.15 else damaged


def _copy(
    archive: zipfile.ZipFile, name: str, data: bytes, kind: int, rng: random.Random, mutate_member: Mutation
) -> None:
    if kind == 4:
        return
    if 0 <= kind < 4:
        data = mutate_member(data, rng)
    if kind == 5:
        name = rng.choice((f"../{name}", f"../{ESCAPED}", f"/{name}", f"{name}\\x", "é", name.upper(), "C:\\x",
                           f"a/{name}", "", f"{name}/", "\0"))  # fmt: skip
    entry = zipfile.ZipInfo(name)
    entry.compress_type = archive.compression
    if kind == 6:
        entry.external_attr = rng.choice(_KINDS) << 16
    archive.writestr(entry, data)
