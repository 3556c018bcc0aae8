/** Colour maps of quantities and the colours of classes. */

// 256 sRGB colours each, base64: matplotlib's "inferno" and "twilight" (CC0) and Google's "turbo" (Apache-2.0).
const TABLES = {
  inferno:
    "AAAEAQAFAQEGAQEIAgEKAgIMAgIOAwIQBAMSBAMUBQQXBgQZBwUbCAUdCQYfCgciCwckDAgmDQgpDgkrEAktEQowEgoyFAs0FQs3Fgs5GAw8" +
    "GQw+GwxBHAxDHgxFHwxIIQxKIwxMJAxPJgxRKAtTKQtVKwtXLQtZLwpbMQpcMgpeNApfNglhOAliOQljOwlkPQllPglmQApnQgpoRApoRQpp" +
    "RwtqSQtqSgxrTAxrTQ1sTw1sUQ5sUg5tVA9tVQ9tVxBuWRBuWhFuXBJuXRJuXxNuYRNuYhRuZBVuZRVuZxZuaRZuahdubBhubRhubxlucRlu" +
    "chpudBpudRtudxxteBxteh1tfB1tfR5tfx5sgB9sgiBshCBrhSFrhyFriCJqiiJqjCNpjSNpjyRpkCVokiVokyZnlSZnlydmmCdmmihlmylk" +
    "nSlknypjoCpjoitioyxhpSxgpi1gqC5fqS5eqy9erTBdrjBcsDFbsTJaszJatDNZtjRYtzVXuTVWujZVvDdUvThTvzlSwDpRwTpQwztPxDxO" +
    "xj1Nxz5MyD9LykBKy0FJzEJIzkNHz0RG0EVF0kZE00dD1EhC1UpB10s/2Ew+2U092k4821A73VE63lI431M34FU24VY14lc041kz5Fox5Vww" +
    "5l0v514u6GAt6WEr6mMq62Qp62Yo7Gcm7Wkl7mok72wj724h8G8g8XEf8XMd8nQc83Yb83gZ9HkY9XsX9X0V9n4U9oAT94IS94QQ+IUP+IcO" +
    "+IkM+YsL+YwK+Y4J+pAI+pIH+pQH+5YG+5cG+5kG+5sG+50H/J8H/KEI/KMJ/KUK/KYM/KgN/KoP/KwR/K4S/LAU/LIW/LQY+7Ya+7gd+7of" +
    "+7wh+74j+sAm+sIo+sQq+sYt+ccv+cky+cs1+M03+M8699E999NA9tVD9tdG9dlJ9dtM9N1P9N9T9OFW8+Na8+Vd8uZh8uhl8upp8ext8e1x" +
    "8e918fF58vJ98vSC8/WG8/aK9PiO9fmS9vqW+Pua+fyd+v2h/P+k",
  turbo:
    "MBI7MhVDMxhKNBtRNR5YNiFfNyRmOCdtOSpzOi15Oy+APDKGPTWLPjiRPzuXPz6cQECiQUOnQUasQkmxQku1Q066RFG/RFTDRFbHRVnLRVzP" +
    "RV7TRmHWRmTaRmbdRmngRmvjR27mR3HpR3PrR3buR3jwR3vyRn30RoD2RoL4RoX6Rof7RYr8RYz9RI/+Q5H+QpT/QZb/QJn/Ppv+PZ7+O6D9" +
    "OqP8OKX7N6j6Nav4M633Ma/1L7L0LrTyLLfwKrnuKLzrJ77pJcDnI8PkIsXiIMffH8ndHsvaHM3YG9DVGtLSGtTQGdXNGNfKGNnIGNvFGN3C" +
    "GN7AGOC9GeK7GeO5GuS2HOa0HeeyH+mvIOqsIuuqJeynJ+6kKu+hLPCeL/GbMvKYNfOUOPSRPPWOP/aKQ/eHRviESviATvl9Uvp6Vfp2Wftz" +
    "XfxvYfxsZf1paf1mbf5icf5fdf5cef5Zff9WgP9ThP9RiP9Oi/9Lj/9Jkv9Hlv5Emf5CnP5An/0/of09pPw8p/w6qfs5rPs4r/o3sfk2tPg2" +
    "t/c1ufY1vPU0vvQ0wfM0w/E0xvA0yO80y+00zew00Oo00uk11Oc11+U12eQ22+I23eA339834d0349s45dk459c56dU569M57NE67s867806" +
    "8cs68sk69Mc69cU69sM698E6+L45+bw5+ro5+7g4+7Y3/LM2/LE2/a41/aw0/qkz/qcy/qQx/qEw/p4v/pst/pks/pYr/pMq/pAp/Y0n/Yom" +
    "/Icl/IQj+4Ei+34h+nsf+Xge+XUd+HIc928a9mwZ9WkY9GYX82MV8mAU8V0T8FsS71gR7VUQ7FMP61AO6k4N6EsM50kM5UcL5EUK4kMK4UEJ" +
    "3z8I3T0I3DsH2jkH2DcG1jUG1DMF0jEF0C8Fzi0EzCsEyioEyCgDxSYDwyUDwSMCviECvCACuR4Ctx0CtBsBshoBrxgBrBcBqRYBpxQBpBMB" +
    "oRIBnhABmw8BmA4BlQ0BkgsBjgoBiwkCiAgChQcCgQYCfgUCegQD",
  twilight:
    "4tni4dni4Nni3tnh3dng3Nnf2tjf2Nje1tfd1Nbc0tXb0NTZzdPYy9LXyNDWxc/Vws7Uv8zTvMvRucnQtsjPs8bOsMXNrcPNqsLMp8DLpL7K" +
    "ob3JnrvJnLnImbjIlrbHk7TGkrPGjrHFjK/Fia3FiKzEhanEgqfDgKXDf6XDfKLCeqDCeJ7Cd53CdZrBc5jBcZbBcZXAbpLAbZDAbI6/a42/" +
    "aYq/aIi+Z4a+Z4W+ZoK9ZX+9ZH28ZHy8Y3m7Yne7YnW6YXK6YXG5YG64YGy4YGm3YGe2X2W1X2K0X2C0X1+zX1uyX1mxX1ewXlSuXlKtXk+s" +
    "Xk2rXkyqXkioXkamXkOlXUGjXT6hXTygXTqeXDidXDWaWzKYWzCVWi6TWiuQWSmOWCeLWCaKVyOFViGCVR9/Ux58Uhx5URp1TxlyTxlwTBdr" +
    "SxZoSRVkRxRhRhReRBNaQhJXQRJWPxJRPRFOPBFLOhFJORFGNxFENhFCNhFBNBE+MxE8MhI6MRM5MBQ3MBQ3MRM3MxI3NBI4NBI4NhE5OBE5" +
    "OhE6OxE7PRE8PxI9QRI9QxI+RhJASBNBShNCTRRDTxREUhVFVBVGVhVGWRZIXBdJXxdKYRhLZBlLZxlMaRpNbBtObxxOcR1PdB5Pdh9PeSBQ" +
    "eyFQfiJQfyNQgyVQhSZQhydQiilQjCpQjixQkC5Qki9QlDFQljNQmDVQmjdQnDlQnjtQoD1QoD5Qo0FQpUNQpkVQqEdQqUlQq0tQrE1RrlBR" +
    "r1JRsVRSslZSs1lTtVtTtl1Ut19VuGFVuWRWumZXu2lYvGtZvW5avnBbv3JdwHVewXdfwnphwnxjw39kxIFmxYRoxYZqxodrxotux45xyJBz" +
    "yJJ1yZV4yZd7ypp9ypyAy5+DzKGGzKOJzaaMzaiPzquSz62Wz66X0LKc0bSg0baj0rin07qq1L2t1b+x1sG018O42MW72Me+2cnC2svF28zI" +
    "3M7L3M/N3dHR3tPT39TW39XY4Nba4Nfb4djd4djf4tng4tnh4tni",
};

/** @returns {Uint8Array} (256 * 3) sRGB of a map: "inferno", "turbo", "twilight" or "gray". */
function decode(name) {
  if (name === "gray") return Uint8Array.from({ length: 768 }, (_, i) => Math.floor(i / 3));
  return Uint8Array.from(atob(TABLES[name]), (character) => character.charCodeAt(0));
}

export const MAP_NAMES = ["gray", "inferno", "turbo", "twilight"];
export const MAPS = Object.fromEntries(MAP_NAMES.map((name) => [name, decode(name)]));

/** Colour of an object without a class; the server says those of classes. */
export const NO_CLASS = "#56b4e9";

/** "#rrggbb" as three numbers 0..255. */
export function rgbOf(colour) {
  return [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
}
