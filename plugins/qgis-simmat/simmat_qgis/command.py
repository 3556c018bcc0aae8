"""What the algorithm and the map tool share: the command `simmat`, and a part of a raster as a file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from osgeo import gdal
from processing.core.ProcessingConfig import ProcessingConfig
from qgis.core import QgsProcessingException, QgsRasterLayer, QgsRectangle

SETTING = "SIMMAT_COMMAND"
_OF_QGIS = (
    "PYTHONHOME",
    "PYTHONPATH",
    "GDAL_DATA",
    "GDAL_DRIVER_PATH",
    "PROJ_DATA",
    "PROJ_LIB",
)
"""Variables that lead to QGIS's own libraries, which are not those of SimMAT."""


def start(*arguments: str, stderr: Any) -> subprocess.Popen[str]:
    """Start the command `simmat` of the settings; its standard output is a pipe.

    Raises:
        QgsProcessingException: it cannot be started.
    """
    command = ProcessingConfig.getSetting(SETTING) or "simmat"
    try:
        return subprocess.Popen(
            [command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={
                name: value
                for name, value in os.environ.items()
                if name not in _OF_QGIS
            },
            encoding="utf-8",
            errors="replace",
            # Windows would open a console
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        raise QgsProcessingException(
            f"cannot run the command {command!r}: {error.strerror}. Install SimMAT in a Python environment of its own, "
            "and choose its command simmat under Settings > Options > Processing > Providers > SimMAT"
        ) from error


def error_in(output: str) -> str:
    """Return the error that the command printed last; without one, all output."""
    return ("\n" + output).rpartition("\nerror: ")[2].strip() or "simmat was stopped"


def check_place(raster: QgsRasterLayer) -> None:
    """Raise QgsProcessingException for a raster that is not a file with a place on the map."""
    if raster.providerType() != "gdal" or not raster.crs().isValid():
        raise QgsProcessingException(
            f"{raster.name()}: must be a file with a coordinate reference system, such as a GeoTIFF"
        )


def save_window(
    raster: QgsRasterLayer,
    extent: QgsRectangle,
    path: Path,
    go_on: Callable[[], bool] = lambda: True,
) -> None:
    """Write the part of a raster inside of an extent as a GeoTIFF: all bands, values as they are stored.

    Args:
        extent: in the raster's coordinates; whole pixels are written.
        path: the new file.
        go_on: asked now and then; False stops.

    Raises:
        QgsProcessingException: the extent is empty, or the file cannot be read or written.
    """
    if extent.isEmpty():
        raise QgsProcessingException(f"{raster.name()}: nothing of it lies there")
    corners = [
        extent.xMinimum(),
        extent.yMaximum(),
        extent.xMaximum(),
        extent.yMinimum(),
    ]
    # the default since GDAL 3.9
    with gdal.ExceptionMgr(), gdal.config_option("GDAL_TIFF_INTERNAL_MASK", "YES"):
        try:
            gdal.Translate(
                str(path),
                raster.source(),
                projWin=corners,
                creationOptions=["BIGTIFF=IF_SAFER"],
                callback=lambda *_: int(go_on()),
            )
        except RuntimeError as error:
            raise QgsProcessingException(
                f"{raster.name()}: cannot cut a window: {error}"
            ) from error
