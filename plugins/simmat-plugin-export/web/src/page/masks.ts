/** What is computed of masks: whether they hold a pixel, strokes of the brush, overlap. Masks are never changed. */

import type { FoundMask, Prompt } from "../engine";

/** A place in the image; (0, 0) is the corner of the first pixel, (0.5, 0.5) its centre. */
export interface Place {
  x: number;
  y: number;
}

export interface Size {
  width: number;
  height: number;
}

export function contains(mask: FoundMask, { x, y }: Place): boolean {
  const column = Math.floor(x) - mask.x;
  const row = Math.floor(y) - mask.y;
  if (column < 0 || row < 0 || column >= mask.width || row >= mask.height) return false;
  return mask.inside[row * mask.width + column] === 1;
}

/** Intersection over union. */
export function overlap(one: FoundMask, other: FoundMask): number {
  const left = Math.max(one.x, other.x);
  const top = Math.max(one.y, other.y);
  const right = Math.min(one.x + one.width, other.x + other.width);
  const bottom = Math.min(one.y + one.height, other.y + other.height);
  let common = 0;
  for (let y = top; y < bottom; y += 1) {
    const rowOfOne = (y - one.y) * one.width - one.x;
    const rowOfOther = (y - other.y) * other.width - other.x;
    for (let x = left; x < right; x += 1) common += one.inside[rowOfOne + x] & other.inside[rowOfOther + x];
  }
  return common / (one.area + other.area - common || 1);
}

/** The mask in another box, with background where it was not. */
function recropped(mask: FoundMask, x: number, y: number, width: number, height: number): FoundMask {
  const inside = new Uint8Array(width * height);
  const left = Math.max(x, mask.x);
  const right = Math.min(x + width, mask.x + mask.width);
  const top = Math.max(y, mask.y);
  const bottom = Math.min(y + height, mask.y + mask.height);
  for (let row = top; row < bottom && left < right; row += 1) {
    const start = (row - mask.y) * mask.width - mask.x;
    inside.set(mask.inside.subarray(start + left, start + right), (row - y) * width + left - x);
  }
  return { ...mask, x, y, width, height, inside };
}

/** The mask in its smallest box, null if it is empty. */
export function trimmed(mask: FoundMask): FoundMask | null {
  const { width, height, inside } = mask;
  let left = width;
  let top = height;
  let right = -1;
  let bottom = -1;
  for (let row = 0; row < height; row += 1) {
    const pixels = inside.subarray(row * width, (row + 1) * width);
    const first = pixels.indexOf(1);
    if (first < 0) continue;
    left = Math.min(left, first);
    right = Math.max(right, pixels.lastIndexOf(1));
    top = Math.min(top, row);
    bottom = row;
  }
  if (bottom < 0) return null;
  return recropped(mask, mask.x + left, mask.y + top, right - left + 1, bottom - top + 1);
}

export interface Stroke {
  from: Place;
  to: Place;
  radius: number;
  /** Whether pixels are taken away. */
  erases: boolean;
}

/**
 * The mask with a stroke of a round brush; null is an empty mask.
 *
 * A mask that was painted has no score. Its box may be larger than it needs, because a stroke has hundreds of parts.
 */
export function stroked(mask: FoundMask | null, stroke: Stroke, image: Size): FoundMask | null {
  if (!mask && stroke.erases) return null;
  const { from, to, radius } = stroke;
  const left = Math.max(0, Math.floor(Math.min(from.x, to.x) - radius));
  const top = Math.max(0, Math.floor(Math.min(from.y, to.y) - radius));
  const right = Math.min(image.width, Math.ceil(Math.max(from.x, to.x) + radius));
  const bottom = Math.min(image.height, Math.ceil(Math.max(from.y, to.y) + radius));
  if (left >= right || top >= bottom) return mask;

  const before = mask ?? { x: left, y: top, width: 0, height: 0, inside: new Uint8Array(), area: 0, score: NaN };
  const painted = stroke.erases ? recropped(before, before.x, before.y, before.width, before.height) : grown(before, left, top, right, bottom);
  const alongX = to.x - from.x;
  const alongY = to.y - from.y;
  const squared = alongX * alongX + alongY * alongY;
  const value = stroke.erases ? 0 : 1;
  let changed = 0;
  for (let y = Math.max(top, painted.y); y < Math.min(bottom, painted.y + painted.height); y += 1) {
    for (let x = Math.max(left, painted.x); x < Math.min(right, painted.x + painted.width); x += 1) {
      const fromX = x + 0.5 - from.x;
      const fromY = y + 0.5 - from.y;
      const share = squared ? (fromX * alongX + fromY * alongY) / squared : 0;
      const nearest = Math.min(1, Math.max(0, share));
      const distance = Math.hypot(fromX - nearest * alongX, fromY - nearest * alongY);
      const at = (y - painted.y) * painted.width + x - painted.x;
      if (distance > radius || painted.inside[at] === value) continue;
      painted.inside[at] = value;
      changed += 1;
    }
  }
  const area = before.area + (stroke.erases ? -changed : changed);
  return area ? { ...painted, area, score: NaN } : null;
}

function grown(mask: FoundMask, left: number, top: number, right: number, bottom: number): FoundMask {
  const x = Math.min(left, mask.x);
  const y = Math.min(top, mask.y);
  const width = Math.max(right, mask.x + mask.width) - x;
  const height = Math.max(bottom, mask.y + mask.height) - y;
  return recropped(mask, x, y, width, height);
}

/** A prompt that stands for a mask: its box, and a pixel deep inside it. */
export function promptOf(mask: FoundMask): Prompt {
  const { x, y, width, height } = mask;
  return { points: [{ ...innerPixel(mask), onObject: true }], box: [x, y, x + width, y + height] };
}

/** The middle of the longest row through a mask, among those near its centre. */
function innerPixel({ x, y, width, height, inside }: FoundMask): Place {
  let best = { x, y };
  let longest = 0;
  for (let row = 0; row < height; row += 1) {
    const distance = Math.abs(row - (height - 1) / 2) / height;
    let run = 0;
    for (let column = 0; column < width; column += 1) {
      run = inside[row * width + column] ? run + 1 : 0;
      const value = run * (1 - distance);
      if (value <= longest) continue;
      longest = value;
      best = { x: x + column - Math.floor(run / 2), y: y + row };
    }
  }
  return best;
}
