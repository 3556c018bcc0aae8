"""The sensors that come with SimMAT: colour, grey, and any planes as they lie in a file."""

from simmat.builtin.sensors.gray import Gray
from simmat.builtin.sensors.raster import Raster
from simmat.builtin.sensors.rgb import Rgb
from simmat.modality import ModalityAdapter

MODALITIES: tuple[ModalityAdapter, ...] = (Rgb(), Gray(), Raster())
"""Ready instances, for the hook `simmat_modalities`."""

__all__ = ["MODALITIES", "Gray", "Raster", "Rgb"]
