"""Published data sets as they lie on disk, and a data set folder over one of them that copies and changes nothing."""

from __future__ import annotations

from simmat.data.layouts import ivrg_nir, nyudv2, rgb_thermal_glass, rgbp_glass, zju_rgbp
from simmat.data.layouts.index import Index, index_layout
from simmat.data.layouts.layout import Found, Layout
from simmat.errors import unknown_name

__all__ = ["LAYOUTS", "Found", "Index", "Layout", "find_layout", "index_layout"]

LAYOUTS: tuple[Layout, ...] = (
    ivrg_nir.LAYOUT,
    rgb_thermal_glass.LAYOUT,
    nyudv2.LAYOUT,
    rgbp_glass.LAYOUT,
    zju_rgbp.LAYOUT,
)
"""The layouts that are known."""


def find_layout(name: str) -> Layout:
    """Return the layout of a name or alias, in any letter case.

    Raises:
        UnknownNameError: there is none of that name; the nearest is named.
    """
    named = {alias: layout for layout in LAYOUTS for alias in (layout.name, *layout.aliases)}
    if name.lower() not in named:
        raise unknown_name("layout", name, named, hint="Any other folder: write a manifest.csv, see docs/data.md")
    return named[name.lower()]
