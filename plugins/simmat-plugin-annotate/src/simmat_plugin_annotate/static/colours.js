/** Colour maps of quantities and the colours of classes. */

/** Name -> (256 * 3) sRGB of a map; they come with the session. */
export const MAPS = {};

const NUMBERS = ["#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#9ad0ff", "#b8a1ff"];

/** Colour of an object while there are no classes, so that neighbours differ. */
export function colourOfNumber(number) {
  return NUMBERS[number % NUMBERS.length];
}

/** The colour of a class, as strong as its hue can be: light colours are not seen on a light grey image. */
export function strong(rgb) {
  const least = Math.min(...rgb);
  const range = Math.max(...rgb) - least;
  return range ? rgb.map((value) => Math.round(((value - least) / range) * 230)) : rgb;
}
