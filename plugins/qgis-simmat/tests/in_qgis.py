"""Run by QGIS (`qgis --code`): use the plugin as a user does, and write what was seen as json.

The environment variable IN_QGIS is json: scene, clicks (on the map of the scene), out, picture, command's pid file.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processing
from processing.core.ProcessingConfig import ProcessingConfig
from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsPointXY,
    QgsProcessingAlgRunnerTask,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProject,
)
from qgis.PyQt.QtCore import Qt, QTimer
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QApplication
from qgis.utils import iface, plugins

GIVEN = json.loads(os.environ["IN_QGIS"])


def wait(condition: Callable[[], Any], seconds: float = 600) -> Any:
    """Let QGIS work until a condition holds; return its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited too long"
        QApplication.processEvents()
        time.sleep(0.02)
    return value


def message() -> str:
    """Return the plugin's message in the bar, where QGIS has its own too, and remove it."""
    bar = iface.messageBar()
    text: str = wait(
        lambda: [one.text() for one in bar.items() if one.title() == "SimMAT"]
    )[0]
    bar.clearWidgets()
    return text


def is_running(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    except FileNotFoundError:
        return False


def click(
    raster: Any, x: float, y: float, button: Any = Qt.MouseButton.LeftButton
) -> None:
    """Click on a place of the raster."""
    canvas = iface.mapCanvas()
    project = QgsProject.instance()
    on_map = QgsCoordinateTransform(raster.crs(), project.crs(), project).transform(
        QgsPointXY(x, y)
    )
    pixel = canvas.getCoordinateTransform().transform(on_map)
    QTest.mouseClick(canvas.viewport(), button, pos=pixel.toQPointF().toPoint())


def clicks() -> dict[str, Any]:
    """Click with a bundle that does not exist, then on objects with one that does, and add them."""
    canvas, raster = iface.mapCanvas(), iface.addRasterLayer(GIVEN["scene"], "scene")
    iface.setActiveLayer(raster)
    # in which QGIS takes the coordinate system of the first layer
    QApplication.processEvents()
    QgsProject.instance().setCrs(QgsCoordinateReferenceSystem("EPSG:3857"))
    iface.mainWindow().resize(1120, 640)
    iface.zoomToActiveLayer()
    wait(lambda: not canvas.isDrawing())
    plugin = plugins["simmat_qgis"]
    plugin.click.trigger()
    tool, found = (
        plugin.tool,
        {"map_crs": canvas.mapSettings().destinationCrs().authid()},
    )
    tool.use("/no/such/bundle")
    click(raster, *GIVEN["clicks"][0])
    found["refused"] = message()
    tool.use(GIVEN["bundle"])
    found["servers"] = []
    for x, y in GIVEN["clicks"]:
        click(raster, x, y)
        click(raster, *GIVEN["beside"], Qt.MouseButton.RightButton)
        wait(lambda: tool.task is None)
        assert tool.found, message()
        found["servers"].append(tool.server.process.pid)
        QTest.keyClick(canvas, Qt.Key.Key_Return)
    (layer,) = (
        one
        for one in QgsProject.instance().mapLayers().values()
        if one.name() == "scene objects"
    )
    canvas.refresh()
    wait(canvas.isDrawing)
    wait(lambda: not canvas.isDrawing())
    iface.mainWindow().grab().save(GIVEN["picture"])
    objects = [feature.geometry().asWkt() for feature in layer.getFeatures()]
    return found | {"objects": objects, "crs": layer.crs().authid()}


def algorithm() -> dict[str, Any]:
    """Run the algorithm in three ways that fail."""
    command = ProcessingConfig.getSetting("SIMMAT_COMMAND")
    ProcessingConfig.setSettingValue("SIMMAT_COMMAND", "/no/such/simmat")
    inputs = {
        "INPUT": GIVEN["scene"],
        "BUNDLE": GIVEN["bundle"],
        "OUTPUT": "TEMPORARY_OUTPUT",
    }
    found = {"missing": failure(inputs)}
    ProcessingConfig.setSettingValue("SIMMAT_COMMAND", command)
    found["refused"] = failure(inputs | {"FIND": "class of every pixel"})
    pid_file = Path(GIVEN["pid"])
    pid_file.unlink()
    context, feedback = QgsProcessingContext(), QgsProcessingFeedback()
    segment = QgsApplication.processingRegistry().algorithmById("simmat:segment")
    task = QgsProcessingAlgRunnerTask(segment, inputs, context, feedback)
    ended: list[bool] = []
    task.executed.connect(lambda ok, _: ended.append(ok))
    QgsApplication.taskManager().addTask(task)
    wait(lambda: pid_file.exists() and pid_file.read_text())
    pid = int(pid_file.read_text())
    found["ran"] = is_running(pid)
    task.cancel()
    wait(lambda: not is_running(pid), 60)
    wait(lambda: ended, 60)
    return found


def failure(inputs: dict[str, Any]) -> str:
    """Return the error of the algorithm."""
    try:
        processing.run("simmat:segment", inputs)
    except Exception as error:
        return str(error)
    return ""


try:
    result = {"clicks": clicks(), "algorithm": algorithm()}
except BaseException:
    result = {"failed": traceback.format_exc()}
Path(GIVEN["out"]).write_text(json.dumps(result))
QgsProject.instance().clear()  # else QGIS would ask whether to save it
QTimer.singleShot(0, iface.actionExit().trigger)  # when its event loop runs
