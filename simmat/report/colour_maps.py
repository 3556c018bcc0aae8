"""Colour maps, and which one shows the values of a channel.

The map follows from the channel's quantity and unit, never from the sensor's name: inferno and °C for temperatures,
turbo for distances, a cyclic map for angles that begin again, grey for everything else.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from simmat.types import Channel, FloatArray

PictureArray = npt.NDArray[np.uint8]
"""(H, W, 3) sRGB, 0..255."""

CELSIUS = "°C"
_ZERO_CELSIUS_K = 273.15
_DISTANCES = ("depth", "distance", "height", "elevation", "disparity")
"""Words in quantities that are shown as distances."""
_HALF_TURN = ("angle_of_linear_polarization", "orientation")
_WHOLE_TURN = ("phase", "azimuth", "direction", "heading")
"""Words in quantities that are the same again after half a turn, and after a whole one."""


def _table(*lines: str) -> PictureArray:
    return np.frombuffer(base64.b64decode("".join(lines)), np.uint8).reshape(256, 3)


_TABLES = MappingProxyType(
    {
        "gray": np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1),
        "inferno": _table(  # Smith and van der Walt 2015, CC0
            "AAADAAAEAAAGAQAHAQEJAQELAgEOAgIQAwISBAMUBAMWBQQYBgQbBwUdCAYfCQYhCgcjCwcmDQgoDggqDwktEAkvEgoyEwo0FAs2Fgs5Fws7"
            "GQs+GgtAHAxDHQxFHwxHIAxKIgtMJAtOJgtQJwtSKQtUKwpWLQpYLgpaMApcMgldNAlfNQlgNwlhOQliOwlkPAllPglmQAlmQQlnQwpoRQpp"
            "RgppSAtqSgtqSwxrTQxrTw1sUA1sUg5sUw5tVQ9tVw9tWBBtWhFtWxFuXRJuXxJuYBNuYhRuYxRuZRVuZhVuaBZuahduaxdubRhubhhucBlu"
            "chltcxptdRttdhtteBxtehxtex1sfR1sfh5sgB9rgR9rgyBrhSBqhiFqiCFqiSJpiyJpjSNpjiRokCRokSVnkyVnlSZmliZmmCdlmShkmyhk"
            "nCljniljoCpioSthoythpCxgpixfpy1fqS5eqy5drC9crjBbrzFbsTFasjJZtDNYtTNXtzRWuDVWujZVuzdUvTdTvjhSvzlRwTpQwjtPxDxO"
            "xT1Nxz5MyD5LyT9Ky0BJzEFIzUJHz0RG0EVE0UZD0kdC1EhB1UlA1ko/10s+2U092k4720863FA53VI43lM331Q24FY04lcz41gy5Fox5Vsw"
            "5lwu5l4t518s6GEr6WIq6mQo62Un7Gcm7Wgl7Woj7mwi720h8G8f8HAe8XId8nQc8nUa83cZ83kY9HoW9XwV9X4U9oAS9oER94MQ94UO+IcN"
            "+IgM+IoL+YwJ+Y4I+ZAI+pEH+pMG+pUG+pcG+5kG+5sG+50G+54H+6AH+6II+6QK+6YL+6gN+6oO+6wQ+64S+7AU+7EW+7MY+7Ua+7cc+7ke"
            "+rsh+r0j+r8l+sEo+cMq+cUs+ccv+Mkx+Ms0+M03988699E89tM/9tVC9ddF9dlI9NtL9NxP895S8+BW8+JZ8uRd8uZg8ehk8elo8ets8e1w"
            "8e508fB58fJ98vOB8vSF8/aJ9PeN9fiR9vqV9/uZ+fyd+v2g/P6k"
        ),
        "turbo": _table(  # Mikhailov 2019, Apache-2.0
            "MBI7MRVCMhhKNBtRNR5YNiFfNyNlOCZsOSlyOix5Oy9/PDKFPDWLPTeRPjqWPz2cQEChQEOmQUWrQUiwQku1Q066Q1C+Q1PCRFbHRFjLRVvO"
            "RV7SRWDWRWPZRmbdRmjgRmvjRm3mRnDoRnPrRnXtRnjwRnryRn30Rn/2RoL4RYT5RYf7RYn8RIz9Q479QpH+QZP+QJb+P5j+Ppv+PJ39O6D8"
            "OaL8OKX7Nqj5NKr4M6z2Ma/1L7HzLbTxK7bvKrntKLvrJr3pJcDmI8LkIcThIMbfHsncHcvaHM3XG8/UGtHSGdPPGNXMGNfKF9nHF9rEF9zC"
            "F96/GOC9GOG6GeO4GuS2G+W0HeexHuivIOmsIuupJOymJ+2jKe6gLO+dL/CaMvGXNfOUOPSRO/SNP/WKQvaHRveDSviATfl8Ufl5Vfp2Wfty"
            "XftvYfxsZfxoaf1lbf1icf1fdP5ceP5ZfP5WgP5ThP5Qh/5Ni/5Ljv5Ikv5Glf5EmP5Cm/1Anv0+ofw9pPw7pvs6qfs5rPo3rvk3sfg2s/g1"
            "tvc1ufU0u/Q0vvM0wPIzw/Ezxe8zyO4zyu0zzes0z+o00eg01Oc11uU12OM12uI23eA239424dw349o35dg459c46NU46tM57NE57c857805"
            "8Ms68sg688Y69MQ69sI698A5+L45+bw5+bo4+rc3+7U3+7M2/LA1/K40/asz/aky/aYx/aMw/qEv/p4u/pst/pgs/ZUr/ZIp/Y8o/Ywn/Ikm"
            "/IYk+4Mj+4Ai+n0g+nof+Xce+HQc93Eb924a9msY9WgX9GUW82MV8mAU8V0T71oR7lgQ7VUP7FIO6lAN6U0N6EsM5kkL5UYK40QK4kIJ4EAI"
            "3j4I3TwH2zoH2TgG1zYG1jQF1DIF0jAF0C8Ezi0EyysDySkDxygDxSYCwyQCwCMCviECux8BuR4BthwBtBsBsRkBrhgBrBYBqRUBphQBoxIB"
            "oBEBnRABmg4Blw0BlAwBkQsBjgoBiwkBhwgBhAcBgQYCfQUCegQC"
        ),
        "twilight": _table(  # Bechtold 2018, CC0
            "4dji4Nni39nh3tng3dng29jf2dje2Nfd1tbc1Nbb0tXaz9TZzdLYytHXx9DWxc/Uws3Tv8zSvMrRucnQtsfPs8bOsMTNrcPMqsHLp8DKpL7K"
            "obzJnrvIm7nImLfHlrXGk7TGkrPGjrDFi67FiazEiKvEhKnDgqfDgKXDf6TCfKHCep/CeJ3Bd5zBdJrBc5jAcZbAcJXAbpK/bZC/a46/a42/"
            "aYm+aIe+Z4W9ZoS9ZYG9ZH+8ZH28Y3y7Yni7Yna6YXS6YXK5YXG5YG24YGu3X2m2X2e2X2S1X2K0X2CzX16zXluxXlmwXlavXlSuXlGtXk+s"
            "Xk2qXkuqXUinXUWmXUOkXUCjXT6hXDyfXDmdXDicWzSZWzKXWjCVWi2SWSuQWSmNWCeLVyWJViKFVSGCVB9/Ux18Uht4UBp1TxlyThhwTBZr"
            "ShVnSRVkRxRgRRNdRBJaQhJXQRJVPhFRPRFOOxFLOhBIOBBGNxBDNhBBNRBAMxE9MhE7MhE6MBI4LxM3LxM2MRI2MhI3MxE3NBE3NhE4NxE5"
            "ORE5OxE6PRE7PxE8QRE9QxI+RRI/RxJAShNBTBNCTxRDURREVBVFVRVGWRZHXBZIXhdJYRhKYxhLZhlMaRpMaxpNbhtOcRxOcx1Odh5PeB9P"
            "eyBPfSFQfyJQgiRQhCVQhydQiShQiypQjSxQkC1Qki9PlDFPljJPmDRPmjZPmzhPnTpPnzxPoD1PokBPpEJPpkRPp0ZPqUlQqktQrE1QrU9Q"
            "r1FRsFRRslZSs1hStFpTtV1Ttl9Ut2BUuWRWumZXu2hXvGtZvW1avnBbv3JcwHRdwHdfwXlgwnxiw35kw4FmxINoxYZqxYdrxotux41wx49y"
            "yJJ1yJR4yZd6yZl9ypyAyp6Dy6GFzKOJzKWMzaiPzaqSzqyVzq6Xz7Gc0LOf0baj0rim07qp07yt1L6w1cC01sK318S72Ma+2cjB2srE28zI"
            "287L3M7M3dHQ3tLT3tPV39XX39bZ4Nbb4Nfd4dje4djf4djh4djh"
        ),
    }
)
"""Colour map -> (256, 3) sRGB for values from 0 to 1.

All but "gray" are matplotlib's, which takes longer to import than an image takes to segment.
"""


@dataclass(frozen=True, slots=True)
class Look:
    """How the values of one channel are shown.

    Attributes:
        colours: name of the colour map.
        unit: of the numbers that are shown beside it.
        factor: a shown number is factor times the value plus offset.
        offset: see `factor`.
        period: of an angle that begins again, in the channel's unit; None for all else.
    """

    colours: str
    unit: str
    factor: float = 1.0
    offset: float = 0.0
    period: float | None = None

    def shown(self, value: float) -> float:
        """Return the number that is shown for a value of the channel."""
        return self.factor * value + self.offset

    def text(self, value: float, digits: int = 6) -> str:
        """Return the number that is shown for a value, rounded to so many digits of the value."""
        return f"{self.shown(float(f'{value:.{digits}g}')):.{digits}g}"


def look_of(channel: Channel) -> Look:
    """Return how a channel is shown."""
    quantity = channel.quantity.lower()
    if is_temperature(channel):
        return Look("inferno", CELSIUS, 1.0, -_ZERO_CELSIUS_K) if channel.unit == "K" else Look("inferno", channel.unit)
    turn = {"rad": 2 * math.pi, "deg": 360.0}.get(channel.unit)
    if turn is not None and any(word in quantity for word in (*_HALF_TURN, *_WHOLE_TURN)):
        period = turn / 2 if any(word in quantity for word in _HALF_TURN) else turn
        return Look("twilight", "°", 360 / turn, 0.0, period)
    if any(word in quantity for word in _DISTANCES):
        return Look("turbo", channel.unit)
    return Look("gray", "°" if channel.unit == "deg" else channel.unit)


def is_temperature(channel: Channel) -> bool:
    """Return True where a channel's quantity is a temperature; counts of a thermal camera are not one."""
    return "temperature" in channel.quantity


def coloured(values: FloatArray, colours: str = "gray") -> PictureArray:
    """Map (H, W) in 0..1 to (H, W, 3) sRGB by a colour map."""
    table = _TABLES[colours]
    picture: PictureArray = table[np.minimum((values * len(table)).astype(np.intp), len(table) - 1)]
    return picture


def colour_bar(look: Look, length: int) -> Sequence[tuple[int, int, int]]:
    """Return the colours along a bar of `length` pixels, from the lowest value to the highest."""
    row = coloured(np.linspace(0, 1, length, dtype=np.float32)[None], look.colours)[0]
    return [(int(red), int(green), int(blue)) for red, green, blue in row]
