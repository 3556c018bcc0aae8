/** Colour maps of quantities and the colours of classes. */

/** Name -> (256 * 3) sRGB of a map; they come with the session. */
export const MAPS = {};

/** The colour of a class, as strong as its hue can be: light colours are not seen on a light grey image. */
export function strong(rgb) {
  const least = Math.min(...rgb);
  const range = Math.max(...rgb) - least;
  return range ? rgb.map((value) => Math.round(((value - least) / range) * 230)) : rgb;
}
