/** The objects of an image, and the windows around them: `simmat_runtime.objects`. */

import { emptyMask, Mask, SizeHw, Window } from "./arrays";

/** An object of an image. */
export interface FoundObject {
  /** The pixels of the image around it. */
  window: Window;
  /** The mask in the window. */
  crop: Mask;
  /** Height and width of the image in pixels. */
  sizeHw: SizeHw;
  /** Predicted IoU, times the probabilities of the class map if there is one. */
  score: number;
  /** The click that found it, x and y. */
  point: readonly [number, number];
  /** Label value of its class; null if the model does not distinguish classes. */
  classId: number | null;
  /** Probability of that class among the classes of objects. */
  classProbability: number | null;
}

/** The part of an object's mask inside a window. */
export function within(one: FoundObject, [y0, x0, y1, x1]: Window): Mask {
  const part = emptyMask(y1 - y0, x1 - x0);
  const shared = sharedWindow(one.window, [y0, x0, y1, x1]);
  if (shared === null) return part;
  const [top, left] = one.window;
  for (let y = shared[0]; y < shared[2]; y++) {
    const row = (y - top) * one.crop.width - left;
    part.data.set(one.crop.data.subarray(row + shared[1], row + shared[3]), (y - y0) * part.width + shared[1] - x0);
  }
  return part;
}

/** The object of a window that starts at row y0 and column x0 of a larger image. */
export function shifted(one: FoundObject, y0: number, x0: number, sizeHw: SizeHw): FoundObject {
  const [top, left, bottom, right] = one.window;
  const window: Window = [top + y0, left + x0, bottom + y0, right + x0];
  return { ...one, window, sizeHw, point: [one.point[0] + x0, one.point[1] + y0] };
}

/** The pixels that two windows have in common; null if there are none. */
export function sharedWindow(first: Window, second: Window): Window | null {
  const y0 = Math.max(first[0], second[0]);
  const x0 = Math.max(first[1], second[1]);
  const y1 = Math.min(first[2], second[2]);
  const x1 = Math.min(first[3], second[3]);
  return y0 < y1 && x0 < x1 ? [y0, x0, y1, x1] : null;
}

/** The smallest window around two windows. */
export function enclosingWindow(first: Window, second: Window): Window {
  return [
    Math.min(first[0], second[0]),
    Math.min(first[1], second[1]),
    Math.max(first[2], second[2]),
    Math.max(first[3], second[3]),
  ];
}
