/** Windows over an image that is too large for one look, and how their answers become one: `simmat_runtime.windows`. */

import { countOf, cut, emptyPlanes, Mask, Planes, roundHalfEven, SizeHw, Window } from "./arrays";
import { enclosingWindow, FoundObject, sharedWindow, within } from "./objects";

/** Part of the smaller of two masks that the other one covers, where both windows look, if they are one object. */
const AGREEMENT = 0.7;
/** Largest window around a prompt, in sides of a window. */
const MAX_TILES = 4;
/** A window holds what a prompt marks with at least this share of its side around it. */
const MARGIN = 1 / 16;

/** Where windows start along one side, evenly, with at least this overlap; the last ends with the image. */
export function windowStarts(size: number, tile: number, overlap: number): number[] {
  if (size <= tile) return [0];
  const count = Math.ceil((size - overlap) / (tile - overlap));
  return Array.from({ length: count }, (_, index) => roundHalfEven((index * (size - tile)) / (count - 1)));
}

/** Cover an image with windows, row by row from the top left. */
export function planWindows([height, width]: SizeHw, tile: number, overlap: number): Window[] {
  const found: Window[] = [];
  for (const y of windowStarts(height, tile, overlap)) {
    for (const x of windowStarts(width, tile, overlap)) {
      found.push([y, x, Math.min(y + tile, height), Math.min(x + tile, width)]);
    }
  }
  return found;
}

/**
 * Blend class probabilities, with weights that are highest in the middle of a window and 1 together.
 *
 * @param windows those of `planWindows`.
 * @param probabilities the (K, h, w) of each window; null if nothing is measured.
 * @param done called with the first row, and the (K, rows, W) probabilities, of rows that no later window reaches.
 */
export async function blended(
  sizeHw: SizeHw,
  windows: readonly Window[],
  probabilities: (window: Window) => Promise<Planes | null>,
  classes: number,
  done: (y0: number, probabilities: Planes) => void,
): Promise<void> {
  const rows = spansOf(windows, 0);
  const columns = spansOf(windows, 1);
  const down = weights(rows, sizeHw[0]);
  const across = weights(columns, sizeHw[1]);
  let band = emptyPlanes(classes, 0, sizeHw[1]);
  for (const [row, [y0, y1]] of rows.entries()) {
    const rest = band;
    band = emptyPlanes(classes, y1 - y0, sizeHw[1]);
    for (let plane = 0; plane < classes; plane++) {
      const size = rest.height * rest.width;
      band.data.set(rest.data.subarray(plane * size, (plane + 1) * size), plane * band.height * band.width);
    }
    for (const [column, [x0, x1]] of columns.entries()) {
      const part = await probabilities([y0, x0, y1, x1]);
      if (part === null) continue;
      for (let plane = 0; plane < classes; plane++) {
        for (let y = 0; y < part.height; y++) {
          const from = (plane * part.height + y) * part.width;
          const to = (plane * band.height + y) * band.width + x0;
          for (let x = 0; x < x1 - x0; x++) {
            band.data[to + x] += part.data[from + x] * Math.fround(down[row][y] * across[column][x]);
          }
        }
      }
    }
    const ready = row + 1 < rows.length ? rows[row + 1][0] - y0 : y1 - y0;
    done(y0, cut(band, [0, 0, ready, band.width]));
    band = cut(band, [ready, 0, band.height, band.width]);
  }
}

function spansOf(windows: readonly Window[], axis: 0 | 1): [number, number][] {
  const ends = new Map(windows.map((window) => [window[axis], window[axis + 2]]));
  return [...ends.entries()].sort((one, other) => one[0] - other[0]);
}

/** The weights of each window along one side; they add up to 1 at each pixel. */
function weights(spans: readonly [number, number][], size: number): Float32Array[] {
  const length = spans[0][1] - spans[0][0];
  const tent = Array.from({ length }, (_, index) => Math.min(index, length - 1 - index) + 1);
  const total = new Float64Array(size);
  for (const [start] of spans) tent.forEach((value, index) => (total[start + index] += value));
  return spans.map(([start]) => Float32Array.from(tent, (value, index) => value / total[start + index]));
}

interface Whole {
  found: FoundObject;
  windows: Window[];
}

/** Join the objects of windows, in pixels of the image: those that a border cuts become one. */
export function joined(parts: Iterable<readonly [Window, readonly FoundObject[]]>): FoundObject[] {
  let every: Whole[] = [];
  for (const [window, found] of parts) {
    let near = every.filter((item) => sharedWindow(item.found.window, window) !== null);
    every = every.filter((item) => sharedWindow(item.found.window, window) === null);
    for (const one of [...found].sort((first, second) => second.score - first.score)) {
      let whole = one;
      let windows = [window];
      const rest: Whole[] = [];
      for (const item of near) {
        if (sharedWindow(whole.window, item.found.window) !== null && agree(whole, item, window)) {
          whole = union(item.found, whole);
          windows = [...windows, ...item.windows];
        } else {
          rest.push(item);
        }
      }
      near = [...rest, { found: whole, windows }];
    }
    every.push(...near);
  }
  return every.map((item) => item.found);
}

/** Whether two objects are one, by the pixels that both windows look at. */
function agree(one: FoundObject, item: Whole, window: Window): boolean {
  const other = item.found;
  for (const seen of item.windows) {
    if (seen.join() === window.join()) continue;
    const both = sharedWindow(window, seen);
    const shared = both && sharedWindow(both, enclosingWindow(one.window, other.window));
    if (shared === null) continue;
    const first = within(one, shared);
    const second = within(other, shared);
    const smaller = Math.min(countOf(first), countOf(second));
    let common = 0;
    for (let pixel = 0; pixel < first.data.length; pixel++) common += first.data[pixel] & second.data[pixel];
    if (smaller > 0 && common / smaller > AGREEMENT) return true;
  }
  return false;
}

/** The pixels of both with the class, score and click of the one with the higher score. */
function union(first: FoundObject, second: FoundObject): FoundObject {
  const window = enclosingWindow(first.window, second.window);
  const better = first.score >= second.score ? first : second;
  const crop = within(first, window);
  const more = within(second, window);
  for (let pixel = 0; pixel < crop.data.length; pixel++) crop.data[pixel] |= more.data[pixel];
  return { ...better, window, crop };
}

/**
 * The windows in which to look for the object of a prompt, each about twice as large as the one before.
 *
 * Those of one side lie on a grid and overlap by half; the one in which the prompt lies deepest is taken. Windows that
 * do not hold the prompt with a margin are left out, and those of more than `MAX_TILES` unless it needs them.
 *
 * @param low smallest x and y of the prompt.
 * @param high largest.
 * @param tile side of the smallest windows.
 */
export function* promptWindows(
  low: readonly [number, number],
  high: readonly [number, number],
  [height, width]: SizeHw,
  tile: number,
): Generator<Window> {
  let side = tile;
  while (true) {
    const [y0, y1, marginY] = deepest(low[1], high[1], height, side);
    const [x0, x1, marginX] = deepest(low[0], high[0], width, side);
    const fits = Math.min(marginY, marginX) >= side * MARGIN;
    if (fits) yield [y0, x0, y1, x1];
    side *= 2;
    if (side >= 2 * Math.max(height, width) || (fits && side > MAX_TILES * tile)) return;
  }
}

/** Start, end and margin of the window along one side of an image that has most margin around a prompt. */
function deepest(low: number, high: number, length: number, side: number): [number, number, number] {
  const margin = (start: number) => {
    const end = start + side;
    return Math.min(start ? low - start : Infinity, end < length ? end - high : Infinity);
  };
  let best = 0;
  for (const start of windowStarts(length, side, Math.floor(side / 2))) if (margin(start) > margin(best)) best = start;
  return [best, Math.min(best + side, length), margin(best)];
}

/** Whether a mask has pixels at a border of its window that is not a border of the image. */
export function reachesBorder(mask: Mask, [y0, x0, y1, x1]: Window, [height, width]: SizeHw): boolean {
  const { data } = mask;
  for (let x = 0; x < mask.width; x++) {
    if (y0 > 0 && data[x]) return true;
    if (y1 < height && data[(mask.height - 1) * mask.width + x]) return true;
  }
  for (let y = 0; y < mask.height; y++) {
    if (x0 > 0 && data[y * mask.width]) return true;
    if (x1 < width && data[(y + 1) * mask.width - 1]) return true;
  }
  return false;
}
