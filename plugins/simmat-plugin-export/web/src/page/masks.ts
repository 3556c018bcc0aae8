/** What is computed of masks that a model found. Masks are never changed. */

import { type Place, type Size, type Stroke, stroked } from "shared/masks.js";
import type { FoundMask, Prompt } from "../engine";

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

/** The mask with a stroke of a round brush; null is an empty mask. A mask that was painted has no score. */
export function painted(mask: FoundMask | null, stroke: Stroke, image: Size): FoundMask | null {
  const made = stroked(mask, stroke, image);
  if (made === mask) return mask;
  return made?.area ? { ...mask, ...made, score: NaN } : null;
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
