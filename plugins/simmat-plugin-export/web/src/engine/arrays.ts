/** Planes and masks in memory, row by row. */

/** (count, height, width) values. */
export interface Planes {
  count: number;
  height: number;
  width: number;
  data: Float32Array;
}

/** (height, width), 1 inside and 0 outside. */
export interface Mask {
  height: number;
  width: number;
  data: Uint8Array;
}

/** (height, width) in pixels. */
export type SizeHw = readonly [number, number];

/** [y0, x0, y1, x1] in pixels, y1 and x1 exclusive. */
export type Window = readonly [number, number, number, number];

export function emptyPlanes(count: number, height: number, width: number): Planes {
  return { count, height, width, data: new Float32Array(count * height * width) };
}

export function emptyMask(height: number, width: number): Mask {
  return { height, width, data: new Uint8Array(height * width) };
}

/** One of several planes, without a copy. */
export function planeOf(planes: Planes, index: number): Planes {
  const size = planes.height * planes.width;
  const data = planes.data.subarray(index * size, (index + 1) * size);
  return { count: 1, height: planes.height, width: planes.width, data };
}

/** A copy of the part of planes in a window. */
export function cut(planes: Planes, [y0, x0, y1, x1]: Window): Planes {
  const part = emptyPlanes(planes.count, y1 - y0, x1 - x0);
  let place = 0;
  for (let plane = 0; plane < planes.count; plane++) {
    for (let y = y0; y < y1; y++) {
      const row = (plane * planes.height + y) * planes.width;
      part.data.set(planes.data.subarray(row + x0, row + x1), place);
      place += part.width;
    }
  }
  return part;
}

/** A copy of the part of a mask in a window. */
export function cutMask(mask: Mask, [y0, x0, y1, x1]: Window): Mask {
  const part = emptyMask(y1 - y0, x1 - x0);
  for (let y = y0; y < y1; y++) {
    const row = y * mask.width;
    part.data.set(mask.data.subarray(row + x0, row + x1), (y - y0) * part.width);
  }
  return part;
}

export function countOf(mask: Mask): number {
  let count = 0;
  for (const value of mask.data) count += value;
  return count;
}

/** The smallest window around what is inside of a mask; null if nothing is. */
export function boxOf(mask: Mask): Window | null {
  const { height, width, data } = mask;
  let top = -1;
  let bottom = 0;
  let left = width;
  let right = 0;
  for (let y = 0; y < height; y++) {
    const row = data.subarray(y * width, (y + 1) * width);
    const first = row.indexOf(1);
    if (first < 0) continue;
    if (top < 0) top = y;
    bottom = y + 1;
    left = Math.min(left, first);
    right = Math.max(right, row.lastIndexOf(1) + 1);
  }
  return top < 0 ? null : [top, left, bottom, right];
}

/** Round as Python does: halves to the even number. */
export function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest < 0.5) return below;
  if (rest > 0.5) return below + 1;
  return below % 2 === 0 ? below : below + 1;
}

/** The index of the largest value, the first of equal ones. */
export function argmax(values: ArrayLike<number>, start = 0, end = values.length): number {
  let best = start;
  for (let index = start + 1; index < end; index++) if (values[index] > values[best]) best = index;
  return best;
}
