"""The algorithm `simmat:segment`: `simmat predict` on a raster, its GeoPackage as the output layer."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from qgis.core import (
    QgsFeatureSink,
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterPoint,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import Qt

from .command import check_place, error_in, save_window, start

KINDS = {
    "every object": ["--everything"],
    "class of every pixel": ["--semantic"],
    "marked objects": [],
}
HELP = """Segments a raster with a model of SimMAT.

<b>Bundle</b>: a bundle's file, or the folder of a run. Without one, name an untuned model in <b>Other options</b>: \
<tt>--foundation lite --modality raster</tt>.
<b>Marked objects</b> are those of a point, and of a layer of points and polygons: a polygon stands for its box, and \
features with the same value in the field <tt>object</tt> are one object.
<b>Extent</b> cuts a window, also of files that are not GeoTIFFs. Without one, the whole file is read.
<b>Other options</b> are those of <tt>simmat predict</tt>, such as <tt>--tile 512 --min-score auto</tt>.

Large rasters are read in windows. The command is chosen under Settings > Options > Processing > Providers > SimMAT.
"""


class Segment(QgsProcessingAlgorithm):
    """Run `simmat predict`; names and descriptions of the parameters are those that QGIS shows."""

    def createInstance(self) -> Segment:
        """Return a new one, as QGIS asks for each run."""
        return Segment()

    def name(self) -> str:
        """Return the name in models and scripts."""
        return "segment"

    def displayName(self) -> str:
        """Return the name in the toolbox."""
        return "Segment"

    def shortHelpString(self) -> str:
        """Return the text beside the parameters."""
        return HELP.replace("\n", "<br>")

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Define the parameters."""
        file = QgsProcessingParameterFile.Behavior.File
        marks = [
            QgsProcessing.SourceType.TypeVectorPoint,
            QgsProcessing.SourceType.TypeVectorPolygon,
        ]
        options = QgsProcessingParameterString(
            "OPTIONS", "Other options", optional=True
        )
        options.setFlags(
            options.flags() | QgsProcessingParameterDefinition.Flag.FlagAdvanced
        )
        for parameter in (
            QgsProcessingParameterRasterLayer("INPUT", "Raster"),
            QgsProcessingParameterFile("BUNDLE", "Bundle", file, optional=True),
            QgsProcessingParameterEnum(
                "FIND",
                "Find",
                [*KINDS],
                defaultValue="every object",
                usesStaticStrings=True,
            ),
            QgsProcessingParameterExtent("EXTENT", "Extent", optional=True),
            QgsProcessingParameterPoint("POINT", "Point on the object", optional=True),
            QgsProcessingParameterPoint(
                "NEGATIVE", "Point not on the object", optional=True
            ),
            QgsProcessingParameterFeatureSource(
                "PROMPTS", "Points and polygons on objects", marks, optional=True
            ),
            QgsProcessingParameterString(
                "CLASSES", "Only these classes, as cow,sheep", optional=True
            ),
            options,
            QgsProcessingParameterFeatureSink(
                "OUTPUT", "Segments", QgsProcessing.SourceType.TypeVectorPolygon
            ),
        ):
            self.addParameter(parameter)

    def processAlgorithm(
        self, parameters: Any, context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Run the command in a temporary folder and copy what it found; cancelling ends the command."""
        raster = self.parameterAsRasterLayer(parameters, "INPUT", context)
        check_place(raster)
        crs, file = raster.crs(), raster.source()
        arguments = KINDS[self.parameterAsEnumString(parameters, "FIND", context)] + [
            "--format=gpkg"
        ]
        marks = [
            name
            for name in ("POINT", "NEGATIVE")
            if parameters.get(name) not in (None, "")
        ]
        for name in marks:
            point = self.parameterAsPoint(parameters, name, context, crs)
            arguments.append(f"--{name.lower()}={point.x()!r},{point.y()!r}")
        if marks:
            known = crs.authid() and not crs.authid().startswith("USER:")
            arguments.append(f"--crs={crs.authid() if known else crs.toWkt()}")
        if parameters.get("PROMPTS") not in (None, ""):
            layer = self.parameterAsCompatibleSourceLayerPath(
                parameters, "PROMPTS", context, ["geojson"], "gpkg", feedback
            )
            arguments.append(f"--prompts={layer}")
        if classes := self.parameterAsString(parameters, "CLASSES", context):
            arguments.append(f"--classes={classes}")
        with TemporaryDirectory() as folder:
            if parameters.get("EXTENT") not in (None, ""):
                extent = self.parameterAsExtent(
                    parameters, "EXTENT", context, crs
                ).intersect(raster.extent())
                file = str(Path(folder, "window.tif"))
                save_window(
                    raster, extent, Path(file), lambda: not feedback.isCanceled()
                )
            bundle = self.parameterAsString(parameters, "BUNDLE", context)
            options = shlex.split(
                self.parameterAsString(parameters, "OPTIONS", context)
            )
            out = Path(folder, "out")
            self._run(
                [
                    *([bundle] if bundle else []),
                    file,
                    *arguments,
                    *options,
                    f"--out={out}",
                ],
                feedback,
            )
            if feedback.isCanceled():
                return {}
            found = QgsVectorLayer(str(next(out.glob("*.gpkg"))), "", "ogr")
            sink, target = self.parameterAsSink(
                parameters,
                "OUTPUT",
                context,
                found.fields(),
                found.wkbType(),
                found.crs(),
            )
            for feature in found.getFeatures():
                sink.addFeature(feature, QgsFeatureSink.Flag.FastInsert)
            del found, sink  # so that its file can be removed
        return {"OUTPUT": target}

    def _run(self, arguments: list[str], feedback: Any) -> None:
        process = start("predict", *arguments, stderr=subprocess.STDOUT)
        feedback.canceled.connect(process.terminate, Qt.ConnectionType.DirectConnection)
        if feedback.isCanceled():  # before it was connected
            process.terminate()
        lines = []
        with process:
            for line in process.stdout or ():
                lines.append(line)
                feedback.pushConsoleInfo(line.rstrip())
                if steps := re.search(r": (\d+) of (\d+), ", line):
                    feedback.setProgress(100 * int(steps[1]) / int(steps[2]))
        if process.returncode and not feedback.isCanceled():
            raise QgsProcessingException(error_in("".join(lines)))
