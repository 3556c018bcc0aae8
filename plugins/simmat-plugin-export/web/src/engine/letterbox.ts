/** The position of an image in the network's square input: `simmat_runtime.letterbox`. */

import { emptyPlanes, Planes, SizeHw } from "./arrays";

/** The weights of resizing along one side: those of each new pixel, and the old pixel at which they begin. */
interface Weights {
  starts: Int32Array;
  rows: Float32Array[];
}

/** Resize planes (K, h, w) to (K, ...sizeHw), bilinear, without aligned corners. */
export function resized(planes: Planes, sizeHw: SizeHw): Planes {
  return weighted(planes, bilinear(planes.height, sizeHw[0]), bilinear(planes.width, sizeHw[1]));
}

function bilinear(before: number, after: number): Weights {
  const round = Math.fround;
  const scale = round(before / after);
  return weightsOf(before, after, (row) => {
    const place = Math.min(Math.max(round(round(scale * round(row + 0.5)) - 0.5), 0), before - 1);
    return [Math.floor(place), Math.floor(place) + 1, (pixel) => 1 - Math.abs(place - pixel)];
  });
}

/** Make weights by a function from a new pixel to its first and last old pixel, and their weight. */
function weightsOf(
  before: number,
  after: number,
  of: (row: number) => [number, number, (pixel: number) => number],
): Weights {
  const starts = new Int32Array(after);
  const rows: Float32Array[] = [];
  for (let row = 0; row < after; row++) {
    const [first, last, weight] = of(row);
    const start = Math.min(Math.max(first, 0), before - 1);
    const end = Math.min(last, before - 1) + 1;
    const values = new Float32Array(end - start);
    for (let pixel = start; pixel < end; pixel++) values[pixel - start] = Math.max(weight(pixel), 0);
    starts[row] = start;
    rows.push(values);
  }
  return { starts, rows };
}

function weighted(planes: Planes, down: Weights, across: Weights): Planes {
  const height = down.rows.length;
  const width = across.rows.length;
  const tall = emptyPlanes(planes.count, height, planes.width);
  const sums = new Float64Array(planes.width);
  for (let plane = 0; plane < planes.count; plane++) {
    for (let y = 0; y < height; y++) {
      sums.fill(0);
      const weights = down.rows[y];
      for (let index = 0; index < weights.length; index++) {
        const weight = weights[index];
        const row = (plane * planes.height + down.starts[y] + index) * planes.width;
        for (let x = 0; x < planes.width; x++) sums[x] += weight * planes.data[row + x];
      }
      tall.data.set(sums, (plane * height + y) * planes.width);
    }
  }
  const result = emptyPlanes(planes.count, height, width);
  for (let row = 0; row < planes.count * height; row++) {
    for (let x = 0; x < width; x++) {
      const weights = across.rows[x];
      const start = row * planes.width + across.starts[x];
      let sum = 0;
      for (let index = 0; index < weights.length; index++) sum += weights[index] * tall.data[start + index];
      result.data[row * width + x] = sum;
    }
  }
  return result;
}

/** 1 / (1 + exp(-x)) of each value. */
export function sigmoid(values: Float32Array): Float32Array {
  return values.map((value) => 0.5 * (1 + Math.tanh(0.5 * value)));
}

/** Probabilities over the planes. */
export function softmax(planes: Planes): Planes {
  const size = planes.height * planes.width;
  const result = emptyPlanes(planes.count, planes.height, planes.width);
  for (let pixel = 0; pixel < size; pixel++) {
    let largest = -Infinity;
    for (let at = pixel; at < planes.data.length; at += size) largest = Math.max(largest, planes.data[at]);
    let sum = 0;
    for (let at = pixel; at < planes.data.length; at += size) {
      const power = Math.exp(planes.data[at] - largest);
      result.data[at] = power;
      sum += power;
    }
    for (let at = pixel; at < planes.data.length; at += size) result.data[at] /= sum;
  }
  return result;
}

/** The position of an image in the S x S input, as in the exported graphs. */
export class Letterbox {
  /**
   * @param originalHw height and width of the image in pixels.
   * @param size S.
   * @param aspect "pad" scales the longer side to S and pads right and bottom; "stretch" scales both sides to S.
   */
  constructor(
    readonly originalHw: SizeHw,
    readonly size: number,
    readonly aspect: string,
  ) {}

  /** Height and width of the content within the input, in input pixels. */
  get scaledHw(): SizeHw {
    if (this.aspect === "stretch") return [this.size, this.size];
    const [height, width] = this.originalHw;
    const scale = this.size / Math.max(height, width);
    return [Math.max(Math.floor(height * scale + 0.5), 1), Math.max(Math.floor(width * scale + 0.5), 1)];
  }

  /** Map x, y, x, y … of the image to the input; (0, 0) is a pixel's centre in both. */
  pointsToInput(points: ArrayLike<number>): Float32Array {
    const scale = this.scaleXy();
    return Float32Array.from(points, (value, index) => (value + 0.5) * scale[index % 2] - 0.5);
  }

  /** Map x, y, x, y … of the input back to the image. */
  pointsToOriginal(points: ArrayLike<number>): Float32Array {
    const scale = this.scaleXy();
    return Float32Array.from(points, (value, index) => (value + 0.5) / scale[index % 2] - 0.5);
  }

  /** Map x0, y0, x1, y1 of outer edges to the input. */
  boxToInput(box: ArrayLike<number>): Float32Array {
    const scale = this.scaleXy();
    return Float32Array.from(box, (value, index) => value * scale[index % 2]);
  }

  private scaleXy(): [number, number] {
    const [height, width] = this.originalHw;
    const [scaledHeight, scaledWidth] = this.scaledHw;
    return [scaledWidth / width, scaledHeight / height];
  }
}
