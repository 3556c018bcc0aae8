/** Numbers as people read them. */

/**
 * A number with as many decimals as a range of values needs.
 * @param {number} value
 * @param {number} range
 */
export function decimals(value, range) {
  if (!Number.isFinite(value)) return "–";
  const digitsOfRange = Math.floor(Math.log10(Math.abs(range) || 1));
  const places = Math.min(8, Math.max(0, 2 - digitsOfRange));
  return value.toFixed(places);
}
