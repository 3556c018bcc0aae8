/** What tables of objects have in common: the columns of `simmat measure`, their heads, sorting, and keys. */

import { element } from "./dom.js";

/** Column -> its unit. @type {Readonly<Record<string, string>>} */
export const AREA_UNITS = { area_m2: "m²", area_um2: "µm²" };

/** Column -> its title. @type {Readonly<Record<string, string>>} */
export const STATISTICS = {
  intensity_mean: "Mean",
  intensity_min: "Min",
  intensity_max: "Max",
  intensity_median: "Median",
  intensity_contrast: "Contrast",
};

/** Column -> what it means, where the title does not say it. @type {Readonly<Record<string, string>>} */
export const HINTS = { intensity_contrast: "Mean of the object minus the mean of a ring around it" };

/** @typedef {{ key: string, title: string, hint: string, isText: boolean }} Head */
/** @typedef {{ by: string, isFalling: boolean }} Sorting */

/**
 * The sorting after a click on a column's head; numbers begin with the largest.
 * @param {Sorting} sorting
 * @param {string} key
 * @param {boolean} startsRising
 * @returns {Sorting}
 */
export function sortedBy(sorting, key, startsRising) {
  return { by: key, isFalling: key === sorting.by ? !sorting.isFalling : !startsRising };
}

/**
 * Draw the heads of columns as buttons; what has the keyboard's focus keeps it.
 * @param {HTMLTableElement} table
 * @param {readonly Head[]} columns
 * @param {Sorting} sorting
 * @param {(column: Head) => void} sort
 */
export function drawHead(table, columns, { by, isFalling }, sort) {
  const head = /** @type {HTMLTableSectionElement} */ (table.tHead);
  const focused = [...head.querySelectorAll("button")].findIndex((button) => button === document.activeElement);
  const cells = columns.map((column) => {
    const { key, title, hint, isText } = column;
    const arrow = key !== by ? "" : isFalling ? " ↓" : " ↑";
    const button = element("button", { title: hint || `Sort by ${title}`, onclick: () => sort(column) }, title + arrow);
    const cell = element("th", { scope: "col", class: isText ? "text" : "" }, button);
    if (arrow) cell.setAttribute("aria-sort", isFalling ? "descending" : "ascending");
    return cell;
  });
  head.replaceChildren(element("tr", {}, ...cells));
  if (focused >= 0) head.querySelectorAll("button")[focused]?.focus();
}

/**
 * Compare two values by a sign; what is not known (NaN) comes last.
 * @param {number | string} one
 * @param {number | string} other
 * @param {number} sign
 */
export function compareValues(one, other, sign) {
  if (typeof one === "string" || typeof other === "string") return sign * String(one).localeCompare(String(other));
  if (Number.isNaN(one) || Number.isNaN(other)) return Number(Number.isNaN(one)) - Number(Number.isNaN(other));
  return sign * (one - other);
}

/**
 * The row that a key goes to from another; undefined for other keys, and where there is no row.
 * @param {KeyboardEvent} event which these keys do not pass on, as they move the image elsewhere
 * @param {number} at -1 for none
 * @param {number} count
 * @returns {number | undefined}
 */
export function rowAfterKey(event, at, count) {
  const last = count - 1;
  /** @type {Record<string, number>} */
  const rows = { ArrowDown: Math.min(last, at + 1), ArrowUp: Math.max(0, at - 1), Home: 0, End: last };
  const row = rows[event.key];
  if (row === undefined || last < 0) return undefined;
  event.preventDefault();
  event.stopPropagation();
  return row;
}
