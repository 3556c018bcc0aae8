/** Colours of objects. */

/** @typedef {readonly [number, number, number]} Rgb red, green and blue, 0 to 255 */

/** Colour of an object without a class. */
export const WITHOUT_CLASS = "#56b4e9";

/** Colours of objects while there are no classes, so that neighbours differ (Okabe and Ito 2008, without black). */
const OF_NUMBERS = ["#56b4e9", "#e69f00", "#2bb58a", "#cc79a7", "#f0e442", "#f0743e", "#9ad0ff", "#b8a1ff"];

/** @param {number} number */
export function colourOfNumber(number) {
  return OF_NUMBERS[number % OF_NUMBERS.length];
}

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
