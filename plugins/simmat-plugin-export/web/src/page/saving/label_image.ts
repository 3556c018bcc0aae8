/** The objects of an image as one plane of their numbers. */

import type { Size } from "shared/masks.js";
import type { LabelledObject } from "../labels";

const LARGEST_NUMBER = 0xffff;

/** (height * width): 0 is background. Of overlapping objects, a painted one or that with the higher score is in front. */
export function labelImage(objects: readonly LabelledObject[], { width, height }: Size): Uint16Array {
  const labels = new Uint16Array(width * height);
  const fromBehind = [...objects].sort((a, b) => rank(a) - rank(b) || b.number - a.number);
  for (const { number, mask } of fromBehind) {
    if (number > LARGEST_NUMBER) throw new Error(`A mask of 16 bits holds ${LARGEST_NUMBER.toLocaleString("en")} objects; save COCO instead.`);
    for (let row = 0; row < mask.height; row += 1) {
      const start = (mask.y + row) * width + mask.x;
      for (let column = 0; column < mask.width; column += 1) {
        if (mask.inside[row * mask.width + column]) labels[start + column] = number;
      }
    }
  }
  return labels;
}

function rank({ mask }: LabelledObject): number {
  return Number.isNaN(mask.score) ? Infinity : mask.score;
}
