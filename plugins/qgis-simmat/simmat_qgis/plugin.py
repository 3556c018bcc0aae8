"""What QGIS loads: the provider of the algorithm, and in its window a toolbar button and a menu."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.core import QgsApplication, QgsProcessingProvider, QgsSettings
from qgis.PyQt.QtGui import QIcon
from qgis.PyQt.QtWidgets import QAction, QFileDialog

from .algorithm import Segment
from .command import SETTING

ICON = str(Path(__file__).with_name("icon.svg"))
BUNDLE = "simmat/bundle"
"""Setting with the bundle of the map tool."""


class Provider(QgsProcessingProvider):
    """SimMAT in the toolbox."""

    def id(self) -> str:
        """Return what names of algorithms begin with."""
        return "simmat"

    def name(self) -> str:
        """Return the name in the toolbox."""
        return "SimMAT"

    def icon(self) -> QIcon:
        """Return the icon in the toolbox."""
        return QIcon(ICON)

    def load(self) -> bool:
        """Add the setting of the command."""
        ProcessingConfig.settingIcons[self.name()] = self.icon()
        setting = Setting(
            self.name(),
            SETTING,
            "Command simmat",
            "simmat",
            valuetype=Setting.FILE,
            validator=str,
        )
        ProcessingConfig.addSetting(setting)
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def unload(self) -> None:
        """Remove the setting."""
        ProcessingConfig.removeSetting(SETTING)

    def loadAlgorithms(self) -> None:
        """Add the algorithm."""
        self.addAlgorithm(Segment())


class Plugin:
    """The plugin in one QGIS; `iface` is None in qgis_process."""

    def __init__(self, iface: Any) -> None:
        self.iface, self.provider = iface, Provider()

    def initProcessing(self) -> None:
        """Add the algorithm."""
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self) -> None:
        """Add the algorithm, the map tool and the menu."""
        from .click_tool import ClickTool

        self.initProcessing()
        self.tool = ClickTool(self.iface)
        self.click = QAction(QIcon(ICON), "Segment by clicks", self.iface.mainWindow())
        self.click.setCheckable(True)
        self.click.triggered.connect(self._activate)
        self.tool.setAction(self.click)
        self.choose = QAction("Bundle for clicks…", self.iface.mainWindow())
        self.choose.triggered.connect(self._choose)
        self.iface.addToolBarIcon(self.click)
        for action in (self.click, self.choose):
            self.iface.addPluginToMenu("SimMAT", action)

    def unload(self) -> None:
        """Remove all of it."""
        QgsApplication.processingRegistry().removeProvider(self.provider)
        if self.iface is None:
            return
        self.tool.server.stop()
        self.iface.mapCanvas().unsetMapTool(self.tool)
        self.iface.removeToolBarIcon(self.click)
        for action in (self.click, self.choose):
            self.iface.removePluginMenu("SimMAT", action)

    def _activate(self) -> None:
        if not self.tool.server.bundle:
            self.tool.use(QgsSettings().value(BUNDLE, "") or self._choose())
        self.iface.mapCanvas().setMapTool(self.tool)

    def _choose(self) -> str:
        known = QgsSettings().value(BUNDLE, "")
        bundle, _ = QFileDialog.getOpenFileName(
            self.iface.mainWindow(), "Bundle", known, "Bundle (*.safetensors *.zip)"
        )
        if bundle:
            QgsSettings().setValue(BUNDLE, bundle)
            self.tool.use(bundle)
        return str(bundle)
