/**
 * Find every object of an image without prompts: `simmat_runtime.everything`.
 *
 * Clicks are the peaks of the dense head's distance map and a place in each part of its class map without a peak; or a
 * grid without a dense head. Of masks that cover the same object the best one is kept. A part of the class map that no
 * mask covers is an object, too.
 */

import {
  argmax,
  boxOf,
  countOf,
  cutMask,
  emptyMask,
  emptyPlanes,
  Mask,
  planeOf,
  Planes,
  roundHalfEven,
} from "./arrays";
import { Letterbox, resized, sigmoid, softmax } from "./letterbox";
import { calibratedClasses, calibratedScore, Dense } from "./manifest";
import { EncodedImage } from "./network";
import { FoundObject } from "./objects";

/** Prompts of one run of the decoder. */
const MAX_PROMPTS = 16;
/** Least probability of being an object for a pixel over which masks grow, and of connected parts of a class map. */
const OBJECT = 0.5;
/** Predicted IoU of an object that is a part of the class map, which no mask of a click covers. */
const PART_SCORE = 0.5;
/** Share of a part of the class map: one that the masks of clicks cover by less is an object by itself. */
const COVERED = 0.1;

/** Settings of the search for objects, see `simmat_runtime.Settings`. */
export const SETTINGS = {
  peak: 0.3,
  peakWindow: 5,
  gridScore: 0.6,
  overlap: 0.5,
  minScore: 0.5,
  objectness: 0.5,
  minArea: 1,
  maxGrowthPx: 8,
};

/** An object, and its mask at the size of the decoder. */
interface Answer {
  found: FoundObject;
  low: Mask;
  /** Its number among the masks of a click, 0 for the single one. */
  number: number;
}

/** Called between runs of the decoder with the share of the work that is done; may throw to stop. */
export type Step = (share: number) => Promise<void>;

/** Find every object of an image, best first. */
export async function findObjects(image: EncodedImage, step: Step): Promise<FoundObject[]> {
  const spec = image.network.manifest.dense;
  const dense = await image.dense();
  const found =
    dense === null || spec === null
      ? await objectsOnGrid(image, step)
      : await findByClasses(image, sigmoid(dense[1].data), softmax(dense[0]), spec, step);
  const scored = found.map((one) => ({
    ...one,
    score: calibratedScore(image.network.manifest, "object", one.score),
  }));
  return byScore(scored);
}

function byScore(found: readonly FoundObject[]): FoundObject[] {
  return [...found].sort((one, other) => other.score - one.score);
}

async function objectsOnGrid(image: EncodedImage, step: Step): Promise<FoundObject[]> {
  let waiting = coarseFirst(gridPoints(image.letterbox));
  const total = waiting.length;
  let kept: Answer[] = [];
  while (waiting.length) {
    await step(1 - waiting.length / total);
    const clicks = waiting.slice(0, MAX_PROMPTS);
    waiting = waiting.slice(MAX_PROMPTS);
    const more = await answers(image, clicks, true, async () => {});
    if (!more.length) continue;
    const every = [...kept, ...more];
    kept = suppress(
      every.map((one) => one.low),
      every.map((one) => one.found.score),
      SETTINGS.overlap,
    ).map((row) => every[row]);
    const single = more.filter((one) => one.number === 0).map((one) => one.low);
    waiting = waiting.filter((point) => !single.some((mask) => isInside(point, mask, image.letterbox.size)));
  }
  return kept.map((one) => one.found).filter((one) => one.score >= SETTINGS.gridScore);
}

/** Find objects by a distance map (h, w) and class probabilities (K, h, w). */
async function findByClasses(
  image: EncodedImage,
  distance: Float32Array,
  probabilities: Planes,
  spec: Dense,
  step: Step,
): Promise<FoundObject[]> {
  const { letterbox } = image;
  const { height: rows, width: columns } = probabilities;
  const stride = letterbox.size / columns;
  // the rest is padding
  const height = roundHalfEven(letterbox.scaledHw[0] / stride);
  const width = roundHalfEven(letterbox.scaledHw[1] / stride);
  const objects = objectProbabilities(probabilities, spec, height, width);
  const parts = objectParts(objects, SETTINGS.peakWindow ** 2);
  const places = clickPlaces(
    distance,
    columns,
    parts.map((part) => part.mask),
    [height, width],
  );
  const clicks = places.map(([x, y]): [number, number] => [
    Math.fround((x + 0.5) * stride - 0.5),
    Math.fround((y + 0.5) * stride - 0.5),
  ]);
  const every = await answers(image, clicks, false, step);
  const kept = suppress(
    every.map((one) => one.low),
    every.map((one) => one.found.score),
    SETTINGS.overlap,
  ).map((row) => every[row]);
  const known = classified(kept, probabilities, spec, SETTINGS.objectness);
  const missed = uncovered(
    parts,
    known.map((one) => one.low),
    known.map((one) => spec.classes.indexOf(one.found.classId)),
  );
  const objectness = new Float32Array(rows * columns);
  for (let at = 0; at < objects.data.length; at++) objectness[at % objectness.length] += objects.data[at];
  const more = await objectsOf(image, missed.map((row) => parts[row].mask), objectness, distance);
  let found = [...known, ...classified(more, probabilities, spec, 0)].map((one) => one.found);
  if (found.length && spec.background) {
    const background = planeOf(probabilities, 0);
    const object = { ...background, data: background.data.map((value) => 1 - value) };
    const restored = await image.restore(object);
    const inside = maskAbove(restored.data, OBJECT, restored.height, restored.width);
    const scale = Math.max(...letterbox.originalHw) / Math.max(...letterbox.scaledHw);
    found = grown(byScore(found), inside, Math.ceil(SETTINGS.maxGrowthPx * scale));
  }
  return found;
}

function maskAbove(values: Float32Array, least: number, height: number, width: number): Mask {
  return { height, width, data: Uint8Array.from(values, (value) => Number(value > least)) };
}

/** The probabilities of the classes of objects, 0 on the padding; all 0 without a background. */
function objectProbabilities(probabilities: Planes, spec: Dense, height: number, width: number): Planes {
  const { count, height: rows, width: columns, data } = probabilities;
  if (!spec.background) return emptyPlanes(count, rows, columns);
  const objects = emptyPlanes(count - 1, rows, columns);
  objects.data.set(data.subarray(rows * columns));
  for (let at = 0; at < objects.data.length; at++) {
    const pixel = at % (rows * columns);
    if (Math.floor(pixel / columns) >= height || pixel % columns >= width) objects.data[at] = 0;
  }
  return objects;
}

/** A connected part of the class map. */
export interface Part {
  mask: Mask;
  /** Index of its class among the classes of objects. */
  classIndex: number;
}

/** The connected parts of at least `minPixels` of each class of objects, by their (C, h, w) probabilities. */
export function objectParts(objects: Planes, minPixels: number): Part[] {
  const { count, height, width, data } = objects;
  const size = height * width;
  const nearest = new Int32Array(size).fill(-1);
  for (let pixel = 0; pixel < size; pixel++) {
    let sum = 0;
    let best = 0;
    for (let plane = 0; plane < count; plane++) {
      const value = data[plane * size + pixel];
      sum = Math.fround(sum + value);
      if (value > data[best * size + pixel]) best = plane;
    }
    if (sum > OBJECT) nearest[pixel] = best;
  }
  const found: Part[] = [];
  const seen = new Uint8Array(size);
  for (let start = 0; start < size; start++) {
    if (nearest[start] < 0 || seen[start]) continue;
    const pixels = connected(nearest, seen, start, width);
    if (pixels.length < minPixels) continue;
    const mask = emptyMask(height, width);
    for (const pixel of pixels) mask.data[pixel] = 1;
    found.push({ mask, classIndex: nearest[start] });
  }
  // by class, then by first pixel
  return found.sort((one, other) => one.classIndex - other.classIndex);
}

/** The pixels of the same value that four neighbours connect with one. */
function connected(values: Int32Array, seen: Uint8Array, start: number, width: number): number[] {
  const pixels = [start];
  seen[start] = 1;
  for (let next = 0; next < pixels.length; next++) {
    const pixel = pixels[next];
    const x = pixel % width;
    for (const neighbour of [pixel - width, pixel + width, x > 0 ? pixel - 1 : -1, x + 1 < width ? pixel + 1 : -1]) {
      if (neighbour < 0 || neighbour >= values.length || seen[neighbour]) continue;
      if (values[neighbour] !== values[start]) continue;
      seen[neighbour] = 1;
      pixels.push(neighbour);
    }
  }
  return pixels;
}

/**
 * The x and y of where to click, highest first.
 *
 * They are the local maxima of a distance map of at least `SETTINGS.peak`, and the maximum of each part without one.
 *
 * @param distance rows of `columns` values.
 * @param size height and width of the part of the map that is not padding.
 */
export function clickPlaces(
  distance: Float32Array,
  columns: number,
  parts: readonly Mask[],
  [height, width]: readonly [number, number],
): [number, number][] {
  // a plateau gets one peak
  const smooth = new Float32Array(height * width);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      let count = 0;
      for (let row = Math.max(y - 1, 0); row <= Math.min(y + 1, height - 1); row++) {
        for (let column = Math.max(x - 1, 0); column <= Math.min(x + 1, width - 1); column++) {
          sum = Math.fround(sum + distance[row * columns + column]);
          count++;
        }
      }
      smooth[y * width + x] = sum / count;
    }
  }
  const reach = Math.floor(SETTINGS.peakWindow / 2);
  const isPeak = new Uint8Array(height * width);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let largest = -Infinity;
      for (let row = Math.max(y - reach, 0); row <= Math.min(y + reach, height - 1); row++) {
        for (let column = Math.max(x - reach, 0); column <= Math.min(x + reach, width - 1); column++) {
          largest = Math.max(largest, smooth[row * width + column]);
        }
      }
      const high = distance[y * columns + x] >= Math.fround(SETTINGS.peak);
      isPeak[y * width + x] = Number(high && smooth[y * width + x] === largest);
    }
  }
  const known = isPeak.slice();
  for (const part of parts) {
    let best = 0;
    let highest = -Infinity;
    let hasPeak = false;
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        if (!part.data[y * part.width + x]) continue;
        const pixel = y * width + x;
        hasPeak ||= known[pixel] === 1;
        if (smooth[pixel] > highest) [best, highest] = [pixel, smooth[pixel]];
      }
    }
    if (!hasPeak) isPeak[best] = 1;
  }
  const found: [number, number][] = [];
  for (let pixel = 0; pixel < isPeak.length; pixel++) {
    if (isPeak[pixel]) found.push([pixel % width, Math.floor(pixel / width)]);
  }
  const value = ([x, y]: [number, number]) => distance[y * columns + x];
  return found.sort((one, other) => value(other) - value(one));
}

/** Which parts the masks of their class cover by less than `COVERED`. */
export function uncovered(parts: readonly Part[], masks: readonly Mask[], maskClasses: readonly number[]): number[] {
  const found: number[] = [];
  for (const [row, part] of parts.entries()) {
    const own = masks.filter((_, index) => maskClasses[index] === part.classIndex);
    const { height, width, data } = part.mask;
    let sum = 0;
    for (let pixel = 0; pixel < data.length; pixel++) {
      if (data[pixel]) sum += shownShare(own, Math.floor(pixel / width), pixel % width, height, width);
    }
    if (sum / countOf(part.mask) < COVERED) found.push(row);
  }
  // as in Python: of one class after the other, which the order of parts gives
  return found;
}

/** The share of a pixel of a (height, width) map that masks of another size cover. */
function shownShare(masks: readonly Mask[], y: number, x: number, height: number, width: number): number {
  if (!masks.length) return 0;
  const [rows, columns] = [masks[0].height, masks[0].width];
  if (rows < height) {
    const pixel = Math.floor((y * rows) / height) * columns + Math.floor((x * columns) / width);
    return Number(masks.some((mask) => mask.data[pixel]));
  }
  const [down, across] = [rows / height, columns / width];
  let sum = 0;
  for (let row = y * down; row < (y + 1) * down; row++) {
    for (let column = x * across; column < (x + 1) * across; column++) {
      sum += Number(masks.some((mask) => mask.data[row * columns + column]));
    }
  }
  return sum / (down * across);
}

/** Parts of the class map that are large enough, as objects of `PART_SCORE`. */
async function objectsOf(
  image: EncodedImage,
  parts: readonly Mask[],
  objectness: Float32Array,
  distance: Float32Array,
): Promise<Answer[]> {
  const found: Answer[] = [];
  for (const part of parts) {
    const logits = emptyPlanes(1, part.height, part.width);
    let place = 0;
    let highest = -1;
    for (let pixel = 0; pixel < part.data.length; pixel++) {
      const inside = part.data[pixel] === 1;
      logits.data[pixel] = inside ? objectness[pixel] - OBJECT : -OBJECT;
      if (inside && distance[pixel] > highest) [place, highest] = [pixel, distance[pixel]];
    }
    const restored = await image.restore(logits);
    const one = objectOf(image, maskAbove(restored.data, 0, restored.height, restored.width));
    if (one === null) continue;
    const scale = image.letterbox.size / part.height;
    const x = ((place % part.width) + 0.5) * scale - 0.5;
    const y = (Math.floor(place / part.width) + 0.5) * scale - 0.5;
    const point = pointOf(image.letterbox, [Math.fround(x), Math.fround(y)]);
    found.push({ found: { ...one, score: PART_SCORE, point }, low: part, number: 0 });
  }
  return found;
}

function pointOf(letterbox: Letterbox, click: readonly [number, number]): [number, number] {
  const [x, y] = letterbox.pointsToOriginal(click);
  return [x, y];
}

/** The object of a mask (H, W), still without a score and click; null if it is too small. */
function objectOf(image: EncodedImage, mask: Mask): FoundObject | null {
  const window = boxOf(mask);
  if (window === null) return null;
  const crop = cutMask(mask, window);
  if (countOf(crop) < SETTINGS.minArea) return null;
  const sizeHw = image.letterbox.originalHw;
  return { window, crop, sizeHw, score: 0, point: [0, 0], classId: null, classProbability: null };
}

/** The x and y of the centres of a grid of cells over the content of the input, row by row. */
export function gridPoints(letterbox: Letterbox): [number, number][][] {
  const [height, width] = letterbox.scaledHw;
  const count = Math.max(Math.min(Math.floor(letterbox.size / 16), 32), 1);
  const step = Math.max(height, width) / count;
  const across = Math.max(roundHalfEven(width / step), 1);
  const down = Math.max(roundHalfEven(height / step), 1);
  const place = (index: number, side: number, cells: number) => Math.fround(((index + 0.5) * side) / cells - 0.5);
  const rows: [number, number][][] = [];
  for (let row = 0; row < down; row++) {
    const y = place(row, height, down);
    rows.push(Array.from({ length: across }, (_, column) => [place(column, width, across), y]));
  }
  return rows;
}

/** The points of a grid from a coarse grid to the finest: every fourth, the rest of every second, then the others. */
export function coarseFirst(points: readonly (readonly [number, number][])[]): [number, number][] {
  const levels: [number, number][][] = [[], [], []];
  for (const [row, line] of points.entries()) {
    for (const [column, point] of line.entries()) {
      let level = 2;
      if (row % 2 === 1 && column % 2 === 1) level = 1;
      if (row % 4 === 1 && column % 4 === 1) level = 0;
      levels[level].push(point);
    }
  }
  return levels.flat();
}

/** Whether a point of an input of side `size` lies in a mask of the same input. */
export function isInside([x, y]: readonly [number, number], mask: Mask, size: number): boolean {
  const column = Math.min(Math.max(Math.trunc(((x + 0.5) * mask.width) / size), 0), mask.width - 1);
  const row = Math.min(Math.max(Math.trunc(((y + 0.5) * mask.height) / size), 0), mask.height - 1);
  return mask.data[row * mask.width + column] === 1;
}

/** What clicks found, and with `alternatives` all masks of each. */
async function answers(
  image: EncodedImage,
  points: readonly (readonly [number, number])[],
  alternatives: boolean,
  step: Step,
): Promise<Answer[]> {
  const every: Answer[] = [];
  for (let start = 0; start < points.length; start += MAX_PROMPTS) {
    await step(start / points.length);
    const part = points.slice(start, start + MAX_PROMPTS);
    const { logits, scores, masks } = await image.decode(
      Float32Array.from(part.flat()),
      new Uint8Array(part.length).fill(1),
      part.length,
    );
    const size = logits.height * logits.width;
    const count = alternatives ? masks : 1;
    const chosen: { row: number; number: number; score: number; logits: Float32Array }[] = [];
    for (let row = 0; row < part.length; row++) {
      for (let number = 0; number < count; number++) {
        const at = row * masks + number;
        const score = Math.min(Math.max(scores[at], 0), 1);
        if (score < SETTINGS.minScore) continue;
        chosen.push({ row, number, score, logits: logits.data.subarray(at * size, (at + 1) * size) });
      }
    }
    const low = emptyPlanes(chosen.length, logits.height, logits.width);
    chosen.forEach((one, index) => low.data.set(one.logits, index * size));
    const restored = await image.restore(low);
    for (const [index, one] of chosen.entries()) {
      const mask = maskAbove(planeOf(restored, index).data, 0, restored.height, restored.width);
      const found = objectOf(image, mask);
      if (found === null) continue;
      const point = pointOf(image.letterbox, part[one.row]);
      every.push({
        found: { ...found, score: one.score, point },
        low: maskAbove(one.logits, 0, logits.height, logits.width),
        number: one.number,
      });
    }
  }
  return every;
}

/**
 * The indices of the masks to keep, by falling score; of two that overlap the worse is removed.
 *
 * A mask of which more than 80 % is inside a kept one is also removed.
 */
export function suppress(masks: readonly Mask[], scores: readonly number[], overlap: number): number[] {
  const order = scores.map((_, index) => index).sort((one, other) => scores[other] - scores[one]);
  const areas = masks.map(countOf);
  const boxes = masks.map(boxOf);
  const kept: number[] = [];
  for (const index of order) {
    const isNew = kept.every((other) => {
      const common = commonPixels(masks[other], boxes[other], masks[index], boxes[index]);
      const union = Math.max(areas[other] + areas[index] - common, 1);
      return common / union <= overlap && common <= 0.8 * areas[index];
    });
    if (isNew) kept.push(index);
  }
  return kept;
}

function commonPixels(one: Mask, oneBox: Box, other: Mask, otherBox: Box): number {
  if (oneBox === null || otherBox === null) return 0;
  let common = 0;
  for (let y = Math.max(oneBox[0], otherBox[0]); y < Math.min(oneBox[2], otherBox[2]); y++) {
    for (let x = Math.max(oneBox[1], otherBox[1]); x < Math.min(oneBox[3], otherBox[3]); x++) {
      common += one.data[y * one.width + x] & other.data[y * one.width + x];
    }
  }
  return common;
}

type Box = ReturnType<typeof boxOf>;

/** The answers that are objects by the class map, with their class. */
function classified(every: readonly Answer[], probabilities: Planes, spec: Dense, least: number): Answer[] {
  if (!every.length) return [];
  const first = Number(spec.background);
  const grid = resized(probabilities, [every[0].low.height, every[0].low.width]);
  const size = grid.height * grid.width;
  const result: Answer[] = [];
  for (const answer of every) {
    const mean = spec.classes.map((_, index) => {
      const plane = (index + first) * size;
      let sum = 0;
      for (let pixel = 0; pixel < size; pixel++) if (answer.low.data[pixel]) sum += grid.data[plane + pixel];
      return sum / countOf(answer.low);
    });
    const sum = mean.reduce((total, one) => total + one, 0);
    const objectness = Math.min(Math.max(sum, 1e-6), 1);
    if (!(objectness >= least)) continue;
    const chances = mean.map((one) => one / objectness);
    const best = argmax(chances);
    const classId = spec.classes[best];
    const score = answer.found.score * objectness * (classId === null ? 1 : chances[best]);
    const classProbability = classId === null ? null : Math.max(...calibratedClasses(spec, chances));
    result.push({ ...answer, found: { ...answer.found, score, classId, classProbability } });
  }
  return result;
}

/**
 * Grow masks over uncovered pixels step by step; the best of several masks takes a pixel.
 *
 * @param found objects, best first.
 * @param inside 1 where masks may grow.
 * @param maxGrowthPx steps of one pixel, including diagonal ones.
 */
export function grown(found: readonly FoundObject[], inside: Mask, maxGrowthPx: number): FoundObject[] {
  const { height, width } = inside;
  const labels = new Int32Array(height * width); // the best mask has the largest number
  for (let index = found.length - 1; index >= 0; index--) {
    const { window, crop } = found[index];
    for (let y = 0; y < crop.height; y++) {
      for (let x = 0; x < crop.width; x++) {
        if (crop.data[y * crop.width + x]) labels[(y + window[0]) * width + x + window[1]] = found.length - index;
      }
    }
  }
  let waiting: number[] = [];
  for (let pixel = 0; pixel < labels.length; pixel++) {
    if (inside.data[pixel] && labels[pixel] === 0) waiting.push(pixel);
  }
  const added = new Map<number, number[]>();
  for (let step = 0; step < maxGrowthPx && waiting.length; step++) {
    const taken: [number, number][] = [];
    const rest: number[] = [];
    for (const pixel of waiting) {
      const label = largestAround(labels, pixel, height, width);
      if (label) taken.push([pixel, label]);
      else rest.push(pixel);
    }
    if (!taken.length) break;
    for (const [pixel, label] of taken) {
      labels[pixel] = label;
      const owner = found.length - label;
      const own = added.get(owner);
      if (own) own.push(pixel);
      else added.set(owner, [pixel]);
    }
    waiting = rest;
  }
  return found.map((one, owner) => withPixels(one, added.get(owner) ?? [], width));
}

function largestAround(labels: Int32Array, pixel: number, height: number, width: number): number {
  const y = Math.floor(pixel / width);
  const x = pixel % width;
  let largest = 0;
  for (let row = Math.max(y - 1, 0); row <= Math.min(y + 1, height - 1); row++) {
    for (let column = Math.max(x - 1, 0); column <= Math.min(x + 1, width - 1); column++) {
      largest = Math.max(largest, labels[row * width + column]);
    }
  }
  return largest;
}

function withPixels(one: FoundObject, pixels: readonly number[], width: number): FoundObject {
  if (!pixels.length) return one;
  let [top, left, bottom, right] = one.window;
  const [y0, x0] = one.window;
  for (const pixel of pixels) {
    const y = Math.floor(pixel / width);
    const x = pixel % width;
    top = Math.min(top, y);
    left = Math.min(left, x);
    bottom = Math.max(bottom, y + 1);
    right = Math.max(right, x + 1);
  }
  const crop = emptyMask(bottom - top, right - left);
  for (let y = 0; y < one.crop.height; y++) {
    const row = one.crop.data.subarray(y * one.crop.width, (y + 1) * one.crop.width);
    crop.data.set(row, (y + y0 - top) * crop.width + x0 - left);
  }
  for (const pixel of pixels) crop.data[(Math.floor(pixel / width) - top) * crop.width + (pixel % width) - left] = 1;
  return { ...one, window: [top, left, bottom, right], crop };
}
