"""The map tool: clicks on the active raster, answered by a `simmat serve` that encodes a window once."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from osgeo import gdal, ogr
from qgis.core import (
    Qgis,
    QgsApplication,
    QgsFeature,
    QgsFillSymbol,
    QgsGeometry,
    QgsPointXY,
    QgsProcessingException,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsTask,
    QgsVectorLayer,
)
from qgis.gui import QgsMapTool, QgsRubberBand
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtGui import QColor

from .client import Client
from .command import check_place, error_in, save_window, start

Clicks = Sequence[tuple[QgsPointXY, int]]
"""Points in the raster's coordinates, each with 1 on the object and 0 beside it."""
WINDOW = 1024
"""Side in pixels of the window around the first click that is sent to the server."""
MARGIN = 256
"""Pixels around a click that must be in the window; else another one is sent."""


class Server:
    """`simmat serve`, started on first use, and the window that it has."""

    def __init__(self, bundle: str) -> None:
        self.bundle = bundle
        self.process: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory(
            prefix="simmat-qgis-", ignore_cleanup_errors=True
        )
        self._source, self._window = "", QgsRectangle()

    def stop(self) -> None:
        """End it; the next click starts another one."""
        if self.process is not None:
            self.process.terminate()

    def segment(
        self, raster: QgsRasterLayer, clicks: Clicks
    ) -> tuple[QgsGeometry, float, str]:
        """Return the outline of the object in the raster's coordinates, its score, and its class or ""."""
        self._start()
        if raster.source() != self._source or not self._window.contains(
            _around(raster, clicks, MARGIN)
        ):
            self._source, self._window = "", _around(raster, clicks, WINDOW // 2)
            save_window(raster, self._window, self._path)
            # the client reads it again if the server has dropped it
            self._client.set_image(self._path)
            self._source = raster.source()
        place = gdal.Open(str(self._path)).GetGeoTransform()
        inverse = gdal.InvGeoTransform(place)
        pixels = [
            gdal.ApplyGeoTransform(inverse, point.x(), point.y()) for point, _ in clicks
        ]
        # 0, 0 is the centre of a pixel
        points = [(x - 0.5, y - 0.5) for x, y in pixels]
        found = self._client.predict(points, [label for _, label in clicks])[0]
        return (
            _outline(found["mask"], place),
            found["score"],
            self._client.model["classes"].get(str(found["class"]), ""),
        )

    @property
    def _path(self) -> Path:
        return Path(self._folder.name, "window.tif")

    def _start(self) -> None:
        if self.process is not None and self.process.poll() is None:
            return
        self._source = ""
        with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
            self.process = start("serve", self.bundle, "--max-mb=2000", stderr=log)
            address = next(
                (line for line in self.process.stdout or () if line.startswith("http")),
                None,
            )
            if address is None:
                log.seek(0)
                raise QgsProcessingException(error_in(log.read()))
        self._client = Client(address.strip())


class _Answer(QgsTask):
    """An answer of the server, in one of QGIS's threads; cancelling ends the server."""

    def __init__(
        self,
        server: Server,
        raster: QgsRasterLayer,
        clicks: Clicks,
        done: Callable[[_Answer], None],
    ) -> None:
        super().__init__("SimMAT", QgsTask.Flag.CanCancel | QgsTask.Flag.Silent)
        self.server, self.raster, self.clicks, self.done = server, raster, clicks, done
        self.found: tuple[QgsGeometry, float, str] | None = None
        self.error = ""

    def run(self) -> bool:
        """Ask the server."""
        try:
            self.found = self.server.segment(self.raster, self.clicks)
        except Exception as error:  # whatever it is, QGIS would only log it
            self.error = str(error)
        return not self.error

    def finished(self, ok: bool) -> None:
        """Show the answer, in QGIS's main thread."""
        self.done(self)

    def cancel(self) -> None:
        """Stop waiting."""
        self.server.stop()
        super().cancel()


class ClickTool(QgsMapTool):
    """Left clicks are on the object, right clicks beside it; Enter adds it, Backspace and Esc take clicks back."""

    def __init__(self, iface: Any) -> None:
        super().__init__(iface.mapCanvas())
        self.iface, self.server = iface, Server("")
        self.raster: QgsRasterLayer | None = None
        self.clicks: list[tuple[QgsPointXY, int]] = []
        self.task: _Answer | None = None
        self.found: tuple[QgsGeometry, float, str] | None = None
        self._results: dict[str, str] = {}
        self._preview = QgsRubberBand(self.canvas(), Qgis.GeometryType.Polygon)
        self._preview.setColor(QColor(230, 159, 0, 110))
        self._marks = [
            QgsRubberBand(self.canvas(), Qgis.GeometryType.Point) for _ in range(2)
        ]
        for band, colour in zip(self._marks, ("#d55e00", "#009e73"), strict=True):
            band.setColor(QColor(colour))
            band.setIconSize(9)

    def use(self, bundle: str) -> None:
        """Answer with another bundle from now on."""
        self.server.stop()
        self.server = Server(bundle)

    def canvasReleaseEvent(self, event: Any) -> None:
        """Take a click."""
        raster = self.iface.activeLayer()
        if not isinstance(raster, QgsRasterLayer):
            self.iface.messageBar().pushWarning(
                "SimMAT", "choose the raster to click on in the list of layers"
            )
            return
        if self.raster is None or raster.source() != self.raster.source():
            self.clear()
            # the layer may be removed while a thread reads it
            self.raster = raster.clone()
        on = event.button() == Qt.MouseButton.LeftButton
        self.clicks.append((self.toLayerCoordinates(raster, event.mapPoint()), int(on)))
        self._ask()

    def keyPressEvent(self, event: Any) -> None:
        """Add the object, or take back the last click or all."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.add()
        elif event.key() == Qt.Key.Key_Backspace:
            del self.clicks[-1:]
            self._ask()
        elif event.key() == Qt.Key.Key_Escape:
            self.clear()
        event.accept()

    def deactivate(self) -> None:
        """Forget the clicks when another tool is chosen."""
        self.clear()
        super().deactivate()

    def clear(self) -> None:
        """Forget the clicks."""
        self.clicks.clear()
        self._ask()

    def add(self) -> None:
        """Add the object that is shown to the layer of this raster's objects."""
        if self.found is None or self.raster is None:
            return
        layer = QgsProject.instance().mapLayer(
            self._results.get(self.raster.source(), "")
        ) or self._new_layer(self.raster)
        feature = QgsFeature(layer.fields())
        feature.setGeometry(self.found[0])
        feature.setAttributes([self.found[2], self.found[1]])
        layer.dataProvider().addFeatures([feature])
        layer.updateExtents()
        layer.triggerRepaint()
        self.clear()

    def _new_layer(self, raster: QgsRasterLayer) -> QgsVectorLayer:
        active = self.iface.activeLayer()
        layer = QgsVectorLayer(
            "MultiPolygon?field=class:string&field=score:double",
            f"{raster.name()} objects",
            "memory",
        )
        layer.setCrs(raster.crs())
        symbol = {"style": "no", "outline_color": "#e69f00", "outline_width": "0.6"}
        layer.renderer().setSymbol(QgsFillSymbol.createSimple(symbol))
        self._results[raster.source()] = QgsProject.instance().addMapLayer(layer).id()
        self.iface.setActiveLayer(active)
        return layer

    def _ask(self) -> None:
        """Show the clicks and ask for their mask; while another answer is awaited, `_show` asks."""
        for label, band in enumerate(self._marks):
            band.reset(Qgis.GeometryType.Point)
            for point, one in self.clicks:
                if one == label:
                    band.addPoint(self.toMapCoordinates(self.raster, point))
        if not any(label for _, label in self.clicks):
            self._preview.reset(Qgis.GeometryType.Polygon)
            self.found = None
        elif self.task is None:
            self.task = _Answer(self.server, self.raster, list(self.clicks), self._show)
            QgsApplication.taskManager().addTask(self.task)

    def _show(self, task: _Answer) -> None:
        self.task = None
        if task.error and not task.isCanceled():
            self.iface.messageBar().pushWarning("SimMAT", task.error)
        if task.isCanceled() or task.error:
            self.clicks.clear()
        elif task.found is not None and task.clicks == self.clicks:
            self.found = task.found
            self._preview.setToGeometry(task.found[0], task.raster.crs())
            return
        self._ask()


def _around(raster: QgsRasterLayer, clicks: Clicks, pixels: int) -> QgsRectangle:
    """Return the extent of clicks and so many pixels around them, cut to the raster."""
    check_place(raster)
    x, y = (
        pixels * raster.rasterUnitsPerPixelX(),
        pixels * raster.rasterUnitsPerPixelY(),
    )
    found = QgsRectangle()
    for point, _ in clicks:
        found.combineExtentWith(
            QgsRectangle(point.x() - x, point.y() - y, point.x() + x, point.y() + y)
        )
    return found.intersect(raster.extent())


def _outline(mask: Any, place: Sequence[float]) -> QgsGeometry:
    """Return a mask (H, W) bool as a multipolygon on the map; `place` is its geotransform."""
    height, width = mask.shape
    raster = gdal.GetDriverByName("MEM").Create("", width, height, 1, gdal.GDT_Byte)
    raster.SetGeoTransform(place)
    band = raster.GetRasterBand(1)
    band.WriteArray(mask.astype("uint8"))
    # the name since GDAL 3.11
    driver = ogr.GetDriverByName("Memory") or ogr.GetDriverByName("MEM")
    source = driver.CreateDataSource("")  # the layer lives as long as it
    layer = source.CreateLayer("", None, ogr.wkbPolygon)
    gdal.Polygonize(band, band, layer, -1)
    parts = []
    for feature in layer:
        part = QgsGeometry()
        part.fromWkb(bytes(feature.GetGeometryRef().ExportToWkb()))
        parts.append(part)
    return QgsGeometry.collectGeometry(parts)
