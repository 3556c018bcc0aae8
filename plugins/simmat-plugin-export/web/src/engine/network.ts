/** The graphs of an exported model: encode an image once, ask it as often as you like: `simmat_runtime.network`. */

import * as ort from "onnxruntime-web/wasm";

import { cut, emptyPlanes, Mask, Planes, Window } from "./arrays";
import { Letterbox, resized, softmax } from "./letterbox";
import { calibratedClasses, DECODERS, DENSE, ENCODER, Manifest, MASKS } from "./manifest";

/** Most values of a group of masks at the size of the image. */
const VALUES_AT_ONCE = 2 ** 24;

export type Levels = Readonly<Record<string, ort.Tensor>>;

/** Encoder, prompt decoder and dense head of an exported model. */
export class Network {
  private readonly sessions = new Map<string, Promise<ort.InferenceSession>>();

  /**
   * @param load loads a graph by its name.
   */
  constructor(
    readonly manifest: Manifest,
    private readonly load: (file: string) => Promise<ort.InferenceSession>,
  ) {}

  /** The session of one file, which is loaded when it is first needed. */
  session(file: string): Promise<ort.InferenceSession> {
    let found = this.sessions.get(file);
    if (found === undefined) {
      found = this.load(file);
      this.sessions.set(file, found);
    }
    return found;
  }

  /** Load a file in another way than `load`, if that is possible; return whether it was. */
  async prepare(file: string, load: () => Promise<ort.InferenceSession>): Promise<boolean> {
    try {
      this.sessions.set(file, Promise.resolve(await load()));
      return true;
    } catch {
      return false; // such as a GPU that cannot hold it: `load` will
    }
  }

  /** Run one file; its outputs by name. */
  async run(file: string, inputs: Record<string, ort.Tensor>): Promise<Record<string, ort.Tensor>> {
    const session = await this.session(file);
    return await session.run(inputs);
  }

  /**
   * Encode an image.
   *
   * @param planes (C, H, W) in the sensor's units, NaN where missing.
   * @param measured (H, W), 0 where no channel is valid.
   */
  async encode(planes: Planes, measured: Mask): Promise<EncodedImage> {
    const { imageSize, aspect } = this.manifest;
    const letterbox = new Letterbox([planes.height, planes.width], imageSize, aspect);
    const image = floats(planes.data, [1, planes.count, planes.height, planes.width]);
    return new EncodedImage(this, letterbox, measured, await this.run(ENCODER, { image }));
  }
}

/** What the decoder answers to K prompts. */
export interface Decoded {
  /** Logits (K * M, h, w) over the whole S x S input; the first of each M is the single mask. */
  logits: Planes;
  /** Predicted IoU, (K * M). */
  scores: Float32Array;
  /** M. */
  masks: number;
}

/** An encoded image, and what the network answers about it. */
export class EncodedImage {
  private classes: Promise<readonly [Planes, Planes] | null> | null = null;

  /**
   * @param letterbox its position in the network's input.
   * @param measured (H, W), 0 where no channel is valid.
   * @param levels name -> output tensor of the encoder, for the decoder and the dense head.
   */
  constructor(
    readonly network: Network,
    readonly letterbox: Letterbox,
    readonly measured: Mask,
    private readonly levels: Levels,
  ) {}

  /** Bytes of the embedding. */
  get byteLength(): number {
    return Object.values(this.levels).reduce((sum, level) => sum + level.size * 4, 0);
  }

  /**
   * Decode K prompts of one kind, in pixels of the network's input.
   *
   * @param coords (K, N, 2) xy; N may be 0.
   * @param labels (K, N), 1 on the object, 0 beside it.
   * @param count K.
   * @param boxes (K, 4) of x0, y0, x1, y1, or null.
   */
  async decode(
    coords: Float32Array,
    labels: ArrayLike<number>,
    count: number,
    boxes: Float32Array | null = null,
  ): Promise<Decoded> {
    const points = labels.length / count;
    const inputs: Record<string, ort.Tensor> = {
      ...this.levels,
      image_index: new ort.Tensor("int64", new BigInt64Array(count), [count]),
    };
    if (points) {
      inputs.point_coords = floats(coords, [count, points, 2]);
      inputs.point_labels = new ort.Tensor("int64", BigInt64Array.from(Array.from(labels), BigInt), [count, points]);
    }
    if (boxes) inputs.boxes = floats(boxes, [count, 4]);
    const kind = boxes === null ? "points" : points ? "both" : "box";
    const found = await this.network.run(DECODERS[kind], inputs);
    const [prompts, masks] = found.logits.dims;
    const [rows, columns] = found.logits.dims.slice(2);
    const data = valuesOf(found.logits);
    return {
      logits: { count: prompts * masks, height: rows, width: columns, data },
      scores: valuesOf(found.iou),
      masks,
    };
  }

  /** Resize logits (N, h, w) of the S x S input to the image, (N, H, W). */
  async restore(logits: Planes): Promise<Planes> {
    const [height, width] = this.letterbox.originalHw;
    const step = Math.max(Math.floor(VALUES_AT_ONCE / Math.max(height * width, this.letterbox.size ** 2)), 1);
    const size = new ort.Tensor("int64", BigInt64Array.from([BigInt(height), BigInt(width)]), [2]);
    const whole = emptyPlanes(logits.count, height, width);
    const values = logits.height * logits.width;
    for (let start = 0; start < logits.count; start += step) {
      const count = Math.min(step, logits.count - start);
      const part = logits.data.subarray(start * values, (start + count) * values);
      const found = await this.network.run(MASKS, {
        logits: floats(part, [count, logits.height, logits.width]),
        original_hw: size,
      });
      whole.data.set(valuesOf(found.masks), start * height * width);
    }
    return whole;
  }

  /** Class logits (K, h, w) and distance logits (1, h, w); null without a dense head. */
  dense(): Promise<readonly [Planes, Planes] | null> {
    this.classes ??= this.runDense();
    return this.classes;
  }

  private async runDense(): Promise<readonly [Planes, Planes] | null> {
    if (this.network.manifest.dense === null) return null;
    const found = await this.network.run(DENSE, { ...this.levels });
    return [firstOf(found.classes), firstOf(found.distance)];
  }

  /** Class and probability of a mask (1, h, w); null without classes of objects or for an empty mask. */
  async classOf(low: Planes): Promise<{ classId: number; probability: number } | null> {
    const dense = await this.dense();
    const spec = this.network.manifest.dense;
    if (dense === null || spec === null || (spec.classes.length === 1 && spec.classes[0] === null)) return null;
    const grid = resized(softmax(dense[0]), [low.height, low.width]);
    const size = low.height * low.width;
    const first = Number(spec.background);
    const mean = spec.classes.map((_, index) => {
      let sum = 0;
      let count = 0;
      for (let pixel = 0; pixel < size; pixel++) {
        if (low.data[pixel] > 0) {
          sum += grid.data[(index + first) * size + pixel];
          count++;
        }
      }
      return sum / count;
    });
    if (Number.isNaN(mean[0])) return null;
    const best = mean.indexOf(Math.max(...mean));
    const classId = spec.classes[best];
    if (classId === null) return null;
    const sum = Math.min(Math.max(mean.reduce((total, one) => total + one, 0), 1e-6), 1);
    const chances = calibratedClasses(
      spec,
      mean.map((one) => one / sum),
    );
    return { classId, probability: Math.max(...chances) };
  }
}

function floats(data: Float32Array, dims: number[]): ort.Tensor {
  return new ort.Tensor("float32", data, dims);
}

function valuesOf(tensor: ort.Tensor): Float32Array {
  return tensor.data as Float32Array;
}

/** The planes of the first image of (B, K, h, w). */
function firstOf(tensor: ort.Tensor): Planes {
  const [, count, height, width] = tensor.dims;
  return { count, height, width, data: valuesOf(tensor).subarray(0, count * height * width) };
}

/** A part of the image and of where it is measured. */
export function windowOf(planes: Planes, window: Window): Planes {
  const [y0, x0, y1, x1] = window;
  if (y0 === 0 && x0 === 0 && y1 === planes.height && x1 === planes.width) return planes;
  return cut(planes, window);
}
