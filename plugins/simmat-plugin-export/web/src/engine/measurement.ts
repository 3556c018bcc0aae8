/** Objects in numbers: shape, and the values of each channel in its own unit, without invalid pixels: `simmat.measurement`. */

import { Measurements } from "../engine";
import { countOf, emptyMask, Mask, SizeHw, Window } from "./arrays";
import { quantileOf } from "./contract";
import { eigenvalues } from "./matrices";
import { sharedWindow, within } from "./objects";
import type { SensorImage } from "./sensors/image";

/** Pixels around an object that belong neither to it nor to its ring, because a lens blurs its edge. */
const RING_GAP_PX = 2;
/** Width of the ring around an object in pixels. */
const RING_PX = 5;
const REACH = RING_GAP_PX + RING_PX;

/** Columns of the shape and their units; 0 are rows and 1 columns. */
const SHAPE: readonly (readonly [string, string])[] = [
  ["area", "px"],
  ["area_m2", "m²"],
  ["area_um2", "µm²"],
  ["bbox-0", "px"],
  ["bbox-1", "px"],
  ["bbox-2", "px"],
  ["bbox-3", "px"],
  ["centroid-0", "px"],
  ["centroid-1", "px"],
  ["axis_major_length", "px"],
  ["axis_minor_length", "px"],
  ["orientation", "rad"],
  ["perimeter", "px"],
  ["solidity", "1"],
];
const STATISTICS = [
  "intensity_mean",
  "intensity_std",
  "intensity_min",
  "intensity_max",
  "intensity_median",
  "intensity_percentile_5",
  "intensity_percentile_95",
  "intensity_contrast",
];

/** An object: the window around it, and its mask in the window. */
export interface Instance {
  window: Window;
  crop: Mask;
}

/** Measure objects of an image; they may overlap. */
export function measure(image: SensorImage, objects: readonly Instance[]): Measurements {
  const columns = SHAPE.map(([name, unit]) => ({ name, unit }));
  for (const { name, unit } of image.channels) {
    for (const statistic of STATISTICS) columns.push({ name: `${statistic}-${name} [${unit}]`, unit });
  }
  return { columns, rows: objects.map((_, index) => rowOf(image, objects, index)) };
}

function rowOf(image: SensorImage, objects: readonly Instance[], index: number): number[] {
  const { pixelSize } = image;
  const shape = new Map(Object.entries(shapeOf(objects[index])));
  const area = shape.get("area")!;
  if (pixelSize?.unit === "m") shape.set("area_m2", area * pixelSize.value ** 2);
  if (pixelSize?.unit === "µm") shape.set("area_um2", area * pixelSize.value ** 2);
  const numbers = SHAPE.map(([name]) => shape.get(name) ?? NaN);
  const [inside, ring] = placesOf(image, objects, index);
  for (const channel of image.channels.keys()) {
    numbers.push(...statisticsOf(valuesAt(image, channel, inside), valuesAt(image, channel, ring)));
  }
  return numbers;
}

/** Area, box, centroid, axes, orientation, perimeter and solidity, as scikit-image defines them. */
function shapeOf({ window, crop }: Instance): Record<string, number> {
  const [y0, x0, y1, x1] = window;
  let area = 0;
  let sumY = 0;
  let sumX = 0;
  eachInside(crop, (y, x) => {
    area++;
    sumY += y;
    sumX += x;
  });
  const [middleY, middleX] = [sumY / area, sumX / area];
  let yy = 0;
  let xx = 0;
  let yx = 0;
  eachInside(crop, (y, x) => {
    yy += (y - middleY) ** 2;
    xx += (x - middleX) ** 2;
    yx += (y - middleY) * (x - middleX);
  });
  // the tensor of inertia
  const [a, b, c] = [xx / area, -yx / area, yy / area];
  const [largest, least] = eigenvalues(a, b, c);
  let orientation = 0.5 * Math.atan2(-2 * b, c - a);
  if (a === c) orientation = b < 0 ? Math.PI / 4 : -Math.PI / 4;
  return {
    area,
    "bbox-0": y0,
    "bbox-1": x0,
    "bbox-2": y1,
    "bbox-3": x1,
    "centroid-0": y0 + middleY,
    "centroid-1": x0 + middleX,
    axis_major_length: 4 * Math.sqrt(Math.max(largest, 0)),
    axis_minor_length: 4 * Math.sqrt(Math.max(least, 0)),
    orientation,
    perimeter: perimeterOf(crop),
    solidity: area / hullPixels(crop),
  };
}

function eachInside(mask: Mask, visit: (y: number, x: number) => void): void {
  for (let y = 0; y < mask.height; y++) {
    for (let x = 0; x < mask.width; x++) if (mask.data[y * mask.width + x]) visit(y, x);
  }
}

/** Benkrid and Crookes, Design and FPGA implementation of a perimeter estimator: by the neighbours of border pixels. */
function perimeterOf(mask: Mask): number {
  const { height, width, data } = mask;
  const at = (values: Uint8Array, y: number, x: number) => {
    return y >= 0 && x >= 0 && y < height && x < width ? values[y * width + x] : 0;
  };
  const border = new Uint8Array(height * width);
  eachInside(mask, (y, x) => {
    const isInner = at(data, y - 1, x) && at(data, y + 1, x) && at(data, y, x - 1) && at(data, y, x + 1);
    border[y * width + x] = Number(!isInner);
  });
  const weights = new Float64Array(50);
  for (const code of [5, 7, 15, 17, 25, 27]) weights[code] = 1;
  for (const code of [21, 33]) weights[code] = Math.SQRT2;
  for (const code of [13, 23]) weights[code] = (1 + Math.SQRT2) / 2;
  let sum = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let code = at(border, y, x);
      for (const step of [-1, 1]) {
        code += 2 * (at(border, y + step, x) + at(border, y, x + step));
        code += 10 * (at(border, y + step, x - 1) + at(border, y + step, x + 1));
      }
      sum += weights[code] ?? 0;
    }
  }
  return sum;
}

type Point = readonly [number, number];

/** Number of pixels in or on the convex polygon around the middles of the edges of all pixels of a mask. */
function hullPixels(mask: Mask): number {
  const points: Point[] = [];
  // in halves of a pixel, so that all are whole numbers
  for (let y = 0; y < mask.height; y++) {
    const row = mask.data.subarray(y * mask.width, (y + 1) * mask.width);
    const first = row.indexOf(1);
    if (first < 0) continue;
    const last = row.lastIndexOf(1);
    points.push([2 * y, 2 * first - 1], [2 * y, 2 * last + 1]);
    for (const x of [first, last]) points.push([2 * y - 1, 2 * x], [2 * y + 1, 2 * x]);
  }
  points.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
  const left = chain(points, -1);
  const right = chain(points, 1);
  let count = 0;
  for (let y = 0; y < mask.height; y++) {
    const start = Math.ceil(crossing(left, 2 * y) / 2 - 1e-9);
    const end = Math.floor(crossing(right, 2 * y) / 2 + 1e-9);
    count += Math.max(end - start + 1, 0);
  }
  return count;
}

/** One side of the convex polygon around points, which are sorted from top to bottom: -1 is the left one, 1 the right. */
function chain(points: readonly Point[], side: -1 | 1): Point[] {
  const kept: Point[] = [];
  for (const point of points) {
    while (kept.length > 1) {
      const [y0, x0] = kept[kept.length - 2];
      const [y1, x1] = kept[kept.length - 1];
      const turn = (x1 - x0) * (point[0] - y0) - (point[1] - x0) * (y1 - y0);
      if (side * turn > 0) break;
      kept.pop();
    }
    kept.push(point);
  }
  return kept;
}

/** Where a side of a polygon crosses a row. */
function crossing(side: readonly Point[], y: number): number {
  for (let index = 1; index < side.length; index++) {
    const [y0, x0] = side[index - 1];
    const [y1, x1] = side[index];
    if (y >= y0 && y <= y1 && y1 > y0) return x0 + ((x1 - x0) * (y - y0)) / (y1 - y0);
  }
  return side[0][1];
}

/** The pixels of the image in an object, and in its ring. */
function placesOf(image: SensorImage, objects: readonly Instance[], index: number): [number[], number[]] {
  const own = objects[index];
  const [y0, x0, y1, x1] = grown(own.window, [image.height, image.width]);
  const mask = within(whole(own), [y0, x0, y1, x1]);
  const distance = squaredDistances(mask);
  const others = emptyMask(y1 - y0, x1 - x0);
  for (const [other, instance] of objects.entries()) {
    if (other === index || !isNear(own, instance)) continue;
    const part = within(whole(instance), [y0, x0, y1, x1]);
    for (let pixel = 0; pixel < part.data.length; pixel++) others.data[pixel] |= part.data[pixel];
  }
  const inside: number[] = [];
  const ring: number[] = [];
  for (let y = y0; y < y1; y++) {
    for (let x = x0; x < x1; x++) {
      const pixel = (y - y0) * mask.width + x - x0;
      if (mask.data[pixel]) inside.push(y * image.width + x);
      const isRing = distance[pixel] > RING_GAP_PX ** 2 && distance[pixel] <= REACH ** 2;
      if (isRing && !others.data[pixel]) ring.push(y * image.width + x);
    }
  }
  return [inside, ring];
}

function whole({ window, crop }: Instance) {
  const sizeHw: SizeHw = [window[2], window[3]];
  return { window, crop, sizeHw, score: 0, point: [0, 0] as const, classId: null, classProbability: null };
}

function grown([y0, x0, y1, x1]: Window, [height, width]: SizeHw): Window {
  return [
    Math.max(y0 - REACH, 0),
    Math.max(x0 - REACH, 0),
    Math.min(y1 + REACH, height),
    Math.min(x1 + REACH, width),
  ];
}

/** Whether another object may lie in the ring of one, and does not contain more than half of it. */
function isNear(own: Instance, other: Instance): boolean {
  const [y0, x0, y1, x1] = own.window;
  if (sharedWindow([y0 - REACH, x0 - REACH, y1 + REACH, x1 + REACH], other.window) === null) return false;
  const common = sharedWindow(own.window, other.window);
  if (common === null) return true;
  const first = within(whole(own), common);
  const second = within(whole(other), common);
  let shared = 0;
  for (let pixel = 0; pixel < first.data.length; pixel++) shared += first.data[pixel] & second.data[pixel];
  return 2 * shared <= countOf(own.crop);
}

/** The squared distance of each pixel to the mask, as far as rings reach. */
function squaredDistances({ height, width, data }: Mask): Float64Array {
  const far = REACH + 1;
  const down = new Uint8Array(height * width).fill(far);
  for (let x = 0; x < width; x++) {
    let last = far;
    for (let y = 0; y < height; y++) {
      last = data[y * width + x] ? 0 : Math.min(last + 1, far);
      down[y * width + x] = last;
    }
    last = far;
    for (let y = height - 1; y >= 0; y--) {
      last = data[y * width + x] ? 0 : Math.min(last + 1, far);
      down[y * width + x] = Math.min(down[y * width + x], last);
    }
  }
  const found = new Float64Array(height * width).fill(Infinity);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let other = Math.max(x - REACH, 0); other <= Math.min(x + REACH, width - 1); other++) {
        const rows = down[y * width + other];
        if (rows === far) continue;
        found[y * width + x] = Math.min(found[y * width + x], rows ** 2 + (other - x) ** 2);
      }
    }
  }
  return found;
}

function valuesAt(image: SensorImage, channel: number, places: readonly number[]): Float64Array {
  const kept = places.filter((place) => image.valid[channel][place]);
  return Float64Array.from(kept, (place) => image.data[channel][place]);
}

/** `STATISTICS` of the values of an object and those of its ring; NaN for those of no values. */
function statisticsOf(inside: Float64Array, ring: Float64Array): number[] {
  if (!inside.length) return STATISTICS.map(() => NaN);
  const mean = meanOf(inside);
  const variance = inside.reduce((sum, value) => sum + (value - mean) ** 2, 0) / inside.length;
  const sorted = inside.slice().sort();
  const [low, middle, high] = [0.05, 0.5, 0.95].map((share) => quantileOf(sorted, share));
  const contrast = ring.length ? mean - meanOf(ring) : NaN;
  return [mean, Math.sqrt(variance), sorted[0], sorted[sorted.length - 1], middle, low, high, contrast];
}

function meanOf(values: Float64Array): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
