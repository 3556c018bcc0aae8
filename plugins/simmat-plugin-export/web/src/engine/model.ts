/** An exported model at work: `setImage` once, then `predict` and `everything` as often as you like: `simmat_runtime.model`. */

import { UserError } from "../engine";
import { cutMask, emptyMask, Mask, planeOf, Planes, SizeHw, Window } from "./arrays";
import { findObjects, Step } from "./everything";
import { measuredPixels, Prompt } from "./inputs";
import { softmax } from "./letterbox";
import { calibratedScore, Manifest, ModelError } from "./manifest";
import { EncodedImage, Network, windowOf } from "./network";
import { FoundObject, shifted } from "./objects";
import { blended, joined, planWindows, promptWindows, reachesBorder } from "./windows";

/** Embeddings of windows that are kept; the one asked for longest ago is dropped. */
const CACHE_BYTES = 2 ** 28;

/** A mask of a part of the image. */
export interface Prediction {
  /** The part of the image that it covers; nothing of the object lies outside. */
  window: Window;
  /** (h, w) of the window. */
  mask: Mask;
  /** (1, h, w) of the window; the mask is 1 where they are above 0. */
  logits: Planes;
  /** Predicted IoU of the mask, calibrated where the model has a calibration. */
  score: number;
  /** (1, h, w), the same logits at the size of the decoder. */
  lowResLogits: Planes;
  classId: number | null;
  classProbability: number | null;
}

/** The class of every pixel of an image. */
export interface Classes {
  labels: Uint32Array;
  /** Label value of pixels without a measurement. */
  nodata: number;
}

/** An exported model. */
export class Model {
  private image: Planes | null = null;
  private valid: Mask = emptyMask(0, 0);
  private windows: Window[] = [];
  // the one asked for last is at the end
  private readonly encoded = new Map<string, EncodedImage>();

  constructor(private readonly network: Network) {}

  get manifest(): Manifest {
    return this.network.manifest;
  }

  /** Height and width of the current image; UserError if there is none. */
  get sizeHw(): SizeHw {
    if (this.image === null) throw new UserError("no image is open; open one first");
    return [this.image.height, this.image.width];
  }

  /** Whether the current image is cut into windows. */
  get isCut(): boolean {
    return this.windows.length > 1;
  }

  /**
   * Encode an image; `predict`, `everything` and `semantic` then work on it.
   *
   * An image larger than the manifest's `largest` is cut into windows, which are encoded when they are first asked
   * about, and kept while they take at most `CACHE_BYTES`.
   *
   * @param planes (C, H, W) in the units of the channels; NaN where missing.
   */
  async setImage(planes: Planes): Promise<void> {
    // after an error there must not be the former image
    this.image = null;
    this.encoded.clear();
    this.valid = measuredPixels(planes, this.manifest.channels);
    this.image = planes;
    const longest = Math.max(...this.sizeHw);
    const tile = this.tile();
    this.windows = planWindows(this.sizeHw, tile, Math.floor(Math.min(tile, longest) / 8));
    if (this.windows.length === 1) await this.encode(this.windows[0]);
  }

  /** The side of the windows of the current image; its own where it is not cut. */
  private tile(): number {
    const longest = Math.max(...this.sizeHw);
    return longest <= this.manifest.largest ? longest : this.manifest.window;
  }

  /** A part of the image, encoded unless it is already; null if nothing is measured. */
  private async encode(window: Window): Promise<EncodedImage | null> {
    if (this.image === null) throw new UserError("no image is open; open one first");
    const measured = cutMask(this.valid, window);
    if (!measured.data.includes(1)) return null;
    const key = window.join();
    let found = this.encoded.get(key);
    this.encoded.delete(key);
    found ??= await this.network.encode(windowOf(this.image, window), measured);
    this.encoded.set(key, found);
    let bytes = 0;
    for (const one of this.encoded.values()) bytes += one.byteLength;
    for (const [oldest, one] of this.encoded) {
      if (bytes <= CACHE_BYTES || this.encoded.size === 1) break;
      this.encoded.delete(oldest);
      bytes -= one.byteLength;
    }
    return found;
  }

  /** Segment the object that a prompt marks in the current image. */
  async predict(prompt: Prompt): Promise<Prediction> {
    prompt.check(this.sizeHw);
    if (this.windows.length === 1) return await this.predictIn(this.windows[0], prompt);
    let found: Prediction | null = null;
    for (const window of promptWindows(...prompt.extent(), this.sizeHw, this.tile())) {
      found = await this.predictIn(window, prompt);
      if (!reachesBorder(found.mask, window, this.sizeHw)) break;
    }
    if (found === null) throw new ModelError("no window holds the prompt");
    return found;
  }

  /** Answer a checked prompt of the image in a window. */
  private async predictIn(window: Window, prompt: Prompt): Promise<Prediction> {
    const image = await this.encode(window);
    if (image === null) throw new UserError("no pixel around the prompt holds a measurement");
    const { coords, labels, box } = prompt.inWindow(window, image.letterbox);
    const decoded = await image.decode(coords, labels, 1, box);
    const low = planeOf(decoded.logits, 0);
    const logits = await image.restore(low);
    if (!logits.data.every(Number.isFinite) || !Number.isFinite(decoded.scores[0])) {
      throw new ModelError("the model computes NaN or infinity for this image; export it again");
    }
    const chosen = await image.classOf(low);
    return {
      window,
      mask: { height: logits.height, width: logits.width, data: Uint8Array.from(logits.data, (one) => Number(one > 0)) },
      logits,
      score: calibratedScore(this.manifest, prompt.box === null ? "click" : "box", decoded.scores[0]),
      lowResLogits: low,
      classId: chosen && chosen.classId,
      classProbability: chosen && chosen.probability,
    };
  }

  /**
   * Find every object of the current image, best first, with its class if the model distinguishes classes.
   *
   * Objects that a border of a window cuts become one.
   */
  async everything(step: Step): Promise<FoundObject[]> {
    const sizeHw = this.sizeHw;
    const found: [Window, FoundObject[]][] = [];
    for (const [number, window] of this.windows.entries()) {
      const within: Step = (share) => step((number + share) / this.windows.length);
      await within(0);
      const image = await this.encode(window);
      if (image === null) continue;
      const objects = await findObjects(image, within);
      found.push([window, objects.map((one) => shifted(one, window[0], window[1], sizeHw))]);
    }
    return joined(found).sort((one, other) => other.score - one.score);
  }

  /** The class of every pixel of the current image; probabilities are blended where windows overlap. */
  async semantic(step: Step): Promise<Classes> {
    const [height, width] = this.sizeHw;
    const spec = this.manifest.dense;
    if (spec === null) throw new UserError("the model has no dense head, so it has no class map");
    const objects = spec.classes.map((value) => value ?? 1);
    const nodata = [255, 65535].find((most) => Math.max(...objects) < most) ?? 2 ** 32 - 1;
    const values = spec.background ? [0, ...objects] : objects;
    const labels = new Uint32Array(height * width).fill(nodata);
    let number = 0;
    const probabilities = async (window: Window) => {
      await step(number++ / this.windows.length);
      return await this.classProbabilities(window);
    };
    await blended(this.sizeHw, this.windows, probabilities, values.length, (y0, found) => {
      const size = found.height * found.width;
      for (let pixel = 0; pixel < size; pixel++) {
        const at = y0 * width + pixel;
        if (!this.valid.data[at]) continue;
        let best = 0;
        for (let plane = 1; plane < values.length; plane++) {
          if (found.data[plane * size + pixel] > found.data[best * size + pixel]) best = plane;
        }
        labels[at] = values[best];
      }
    });
    return { labels, nodata };
  }

  /** The (K, h, w) class probabilities of a window, 0 where nothing is measured; null without any. */
  private async classProbabilities(window: Window): Promise<Planes | null> {
    const image = await this.encode(window);
    const dense = image && (await image.dense());
    if (image === null || dense === null) return null;
    const found = softmax(await image.restore(dense[0]));
    const size = found.height * found.width;
    for (let at = 0; at < found.data.length; at++) if (!image.measured.data[at % size]) found.data[at] = 0;
    return found;
  }
}
