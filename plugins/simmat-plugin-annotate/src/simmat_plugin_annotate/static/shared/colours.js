/** Colours of objects. */

/** @typedef {readonly [number, number, number]} Rgb red, green and blue, 0 to 255 */

/** Colour of an object without a class. */
export const WITHOUT_CLASS = "#56b4e9";

/**
 * The colour that "#rrggbb" stands for.
 * @param {string} colour
 * @returns {Rgb}
 */
export function rgbOf(colour) {
  const value = parseInt(colour.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** @param {Rgb} colour */
export function cssOf(colour) {
  return `rgb(${colour.join(" ")})`;
}
