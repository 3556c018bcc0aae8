"""What `--modality` takes: names of sensors and paths of `sensor.toml` files, joined by "+"."""

from __future__ import annotations

from pathlib import Path

from simmat.io.files import with_home

SENSOR_FILE_ENDING = ".toml"


def modality_parts(text: str) -> tuple[str, ...]:
    """Split "rgb+./sonar.toml" into its parts; a "+" in the folders of a path does not split it.

    An empty part stays, for the caller to refuse.
    """
    if is_sensor_file(text) and Path(text).is_file():
        return (text,)
    parts: list[str] = []
    for piece in text.split("+"):
        if parts and _is_open(parts[-1]):
            parts[-1] += f"+{piece}"
        else:
            parts.append(piece)
    return tuple(part.strip() for part in parts)


def is_sensor_file(part: str) -> bool:
    """True where a part is the path of a sensor's description, not a name."""
    return part.lower().endswith(SENSOR_FILE_ENDING)


def with_absolute_files(text: str, folder: Path | None = None) -> str:
    """Return `text` with the paths in it absolute, relative ones taken from `folder` (default: the current one).

    Raises:
        ConfigError: a path begins with a home folder that does not exist.
    """
    parts = modality_parts(text)
    if not any(is_sensor_file(part) for part in parts):
        return text
    base = (folder or Path()).absolute()
    return "+".join(str(base / with_home(part)) if is_sensor_file(part) else part for part in parts)


def _is_open(part: str) -> bool:
    """True for the beginning of a path whose file name is still to come: "/data/c" of "/data/c++/sonar.toml"."""
    return ("/" in part or "\\" in part) and not is_sensor_file(part)
