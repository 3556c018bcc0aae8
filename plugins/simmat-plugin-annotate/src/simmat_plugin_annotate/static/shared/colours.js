/** Colours of objects. */

/** Colour of an object without a class. */
export const WITHOUT_CLASS = "#56b4e9";

/**
 * "#rrggbb" as three numbers 0..255.
 * @param {string} colour
 * @returns {[number, number, number]}
 */
export function rgbOf(colour) {
  const value = parseInt(colour.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}
