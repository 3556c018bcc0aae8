/** Masks as the server stores them: lengths of runs, row by row of their box, the first of background. */

import { maskOf } from "./shared/masks.js";

/** The mask of `{box: [x0, y0, x1, y1], runs}`. */
export function maskOfRuns({ box: [x, y, right, bottom], runs }) {
  const [width, height] = [right - x, bottom - y];
  const inside = new Uint8Array(width * height);
  let at = 0;
  let value = 0;
  for (const count of runs) {
    if (value) inside.fill(1, at, at + count);
    at += count;
    value = 1 - value;
  }
  return maskOf({ x, y, width, height, inside });
}

export function runsOf({ x, y, width, height, inside }) {
  const runs = [];
  let value = 0;
  let length = 0;
  for (const pixel of inside) {
    if (pixel === value) length += 1;
    else {
      runs.push(length);
      value = pixel;
      length = 1;
    }
  }
  runs.push(length);
  return { box: [x, y, x + width, y + height], runs };
}
