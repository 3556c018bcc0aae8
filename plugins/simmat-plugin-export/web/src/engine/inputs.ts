/** What a user gives, checked: an image in the sensor's units, and a prompt in its pixels: `simmat_runtime.inputs`. */

import { UserError } from "../engine";
import { emptyMask, Mask, Planes, SizeHw, Window } from "./arrays";
import { Letterbox } from "./letterbox";
import { SensorChannel } from "./manifest";

/** (H, W), 1 where a channel is valid; UserError if there is no such pixel. */
export function measuredPixels(planes: Planes, channels: readonly SensorChannel[]): Mask {
  const measured = emptyMask(planes.height, planes.width);
  const size = planes.height * planes.width;
  let any = false;
  for (const [index, channel] of channels.entries()) {
    const [low, high] = channel.validRange ?? [-Infinity, Infinity];
    for (let pixel = 0; pixel < size; pixel++) {
      const value = planes.data[index * size + pixel];
      if (Number.isFinite(value) && value >= low && value <= high) {
        measured.data[pixel] = 1;
        any = true;
      }
    }
  }
  if (any) return measured;
  const ranges = channels
    .filter((channel) => channel.validRange !== null)
    .map((channel) => `${channel.name}, ${channel.validRange?.join(" to ")} ${channel.unit}`);
  const valid = ranges.length ? `; valid are ${ranges.join(", ")}` : "";
  throw new UserError(`no pixel holds a measurement, so there is nothing to segment${valid}`);
}

/** One prompt. */
export class Prompt {
  /**
   * @param coords x, y, x, y … in pixels of the image.
   * @param labels 1 on the object, 0 beside it, one for each point.
   * @param box x0, y0, x1, y1, outer edges of the object; null without a box.
   */
  constructor(
    readonly coords: readonly number[],
    readonly labels: readonly number[],
    readonly box: readonly number[] | null,
  ) {}

  /** Raise UserError for an empty prompt, or one that does not fit an image. */
  check([height, width]: SizeHw): void {
    const { coords, labels, box } = this;
    if (!labels.length && box === null) {
      throw new UserError("a prompt needs at least one point or a box");
    }
    for (let index = 0; index < coords.length; index += 2) {
      const [x, y] = [coords[index], coords[index + 1]];
      if (!(x >= 0 && y >= 0 && x < width && y < height)) {
        throw new UserError(`point ${x}, ${y} must be on the image, which is ${width} wide and ${height} high`);
      }
    }
    if (box === null) return;
    const [x0, y0, x1, y1] = box;
    if (!(x0 >= 0 && y0 >= 0 && x0 < x1 && y0 < y1 && x1 <= width && y1 <= height)) {
      throw new UserError(
        `a box must be x0, y0, x1, y1 with x0 < x1 <= ${width} and y0 < y1 <= ${height}; got ${box.join(", ")}`,
      );
    }
  }

  /** The smallest and the largest x and y of what is on the object; UserError if nothing is. */
  extent(): [[number, number], [number, number]] {
    const xs: number[] = [];
    const ys: number[] = [];
    for (const [index, label] of this.labels.entries()) {
      if (label === 1) {
        xs.push(this.coords[2 * index]);
        ys.push(this.coords[2 * index + 1]);
      }
    }
    if (this.box !== null) {
      xs.push(this.box[0], this.box[2]);
      ys.push(this.box[1], this.box[3]);
    }
    if (!xs.length) throw new UserError("no point is on the object; add one, or its box");
    return [
      [Math.min(...xs), Math.min(...ys)],
      [Math.max(...xs), Math.max(...ys)],
    ];
  }

  /**
   * A prompt of the image as `EncodedImage.decode` takes it, K = 1, without what is beside a window.
   *
   * @param letterbox position of the window in the network's input.
   */
  inWindow(window: Window, letterbox: Letterbox) {
    const [y0, x0, y1, x1] = window;
    const coords: number[] = [];
    const labels: number[] = [];
    for (const [index, label] of this.labels.entries()) {
      const [x, y] = [this.coords[2 * index], this.coords[2 * index + 1]];
      if (label === 1 || (x >= x0 && y >= y0 && x < x1 && y < y1)) {
        coords.push(x - x0, y - y0);
        labels.push(label);
      }
    }
    const { box } = this;
    return {
      coords: letterbox.pointsToInput(coords),
      labels,
      box: box && letterbox.boxToInput([box[0] - x0, box[1] - y0, box[2] - x0, box[3] - y0]),
    };
  }
}
