"""Atomic files: written to a temporary name, synced, renamed into place.

A crash at any moment leaves the old file or the new one, never a part of one. Errors of the operating system become an
OutputError with the path, the cause and a remedy.
"""

from simmat.io.files.folder import atomic_folder, recover_folder, staged_files
from simmat.io.files.inputs import (
    missing,
    parse_json,
    read_bytes,
    read_json,
    read_rows,
    require_file,
    require_folder,
    shown_url,
    stem_of,
    url_of,
)
from simmat.io.files.single import (
    atomic_path,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    check_writable,
    read_log,
    remove_leftovers,
    remove_temporary,
    write_rows,
)
from simmat.io.files.system import TEMPORARY_MARK, cache_folder, locked, output_error, with_home

__all__ = [
    "TEMPORARY_MARK",
    "atomic_folder",
    "atomic_path",
    "atomic_write_bytes",
    "atomic_write_json",
    "atomic_write_text",
    "cache_folder",
    "check_writable",
    "locked",
    "missing",
    "output_error",
    "parse_json",
    "read_bytes",
    "read_json",
    "read_log",
    "read_rows",
    "recover_folder",
    "remove_leftovers",
    "remove_temporary",
    "require_file",
    "require_folder",
    "shown_url",
    "staged_files",
    "stem_of",
    "url_of",
    "with_home",
    "write_rows",
]
