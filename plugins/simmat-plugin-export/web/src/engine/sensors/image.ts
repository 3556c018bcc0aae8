/** An image of a sensor in physical units: `simmat.types.SensorImage`. */

import { UserError } from "../../engine";
import { Planes } from "../arrays";
import { ImageFile, isFloat, Stored } from "../files/image_file";

/** A plane, and what its numbers mean. */
export interface ImageChannel {
  name: string;
  quantity: string;
  unit: string;
  validRange: readonly [number, number] | null;
}

export class SensorImage {
  pixelSize?: { value: number; unit: "m" | "µm" };

  /**
   * @param data for each channel its (height * width) values, 0 where invalid.
   * @param valid for each channel 1 where something was measured.
   */
  constructor(
    readonly name: string,
    readonly channels: readonly ImageChannel[],
    readonly height: number,
    readonly width: number,
    readonly data: readonly Float32Array[],
    readonly valid: readonly Uint8Array[],
  ) {}

  /** (C, H, W), NaN where nothing was measured. */
  planes(): Planes {
    const size = this.height * this.width;
    const data = new Float32Array(this.data.length * size);
    for (const [index, plane] of this.data.entries()) {
      const target = data.subarray(index * size, (index + 1) * size);
      target.set(plane);
      const valid = this.valid[index];
      for (let pixel = 0; pixel < size; pixel++) if (!valid[pixel]) target[pixel] = NaN;
    }
    return { count: this.data.length, height: this.height, width: this.width, data };
  }
}

/**
 * Make an image; values that are not finite, or outside of their channel's range, become invalid.
 *
 * @param planes the numbers of each channel, in its unit.
 * @param valid for each channel 0 at further invalid pixels.
 */
export function fromPlanes(
  file: Pick<ImageFile, "name" | "height" | "width" | "pixelSize">,
  channels: readonly ImageChannel[],
  planes: readonly Stored[],
  valid: readonly Uint8Array[],
): SensorImage {
  const data: Float32Array[] = [];
  const good: Uint8Array[] = [];
  for (const [index, plane] of planes.entries()) {
    const values = Float32Array.from(plane);
    const own = valid[index].slice();
    const [low, high] = channels[index].validRange ?? [-Infinity, Infinity];
    const mayBeInfinite = isFloat(plane);
    for (let pixel = 0; pixel < values.length; pixel++) {
      const value = values[pixel];
      if ((mayBeInfinite && !Number.isFinite(value)) || !(value >= low && value <= high)) own[pixel] = 0;
      if (!own[pixel]) values[pixel] = 0;
    }
    data.push(values);
    good.push(own);
  }
  const image = new SensorImage(file.name, channels, file.height, file.width, data, good);
  image.pixelSize = file.pixelSize;
  return image;
}

/** Raise UserError for channels of another name, quantity or unit than those of training. */
export function checkChannels(image: SensorImage, expected: readonly ImageChannel[]): void {
  const text = (channel: ImageChannel) => `${channel.name} ${channel.quantity} ${channel.unit}`;
  if (image.channels.map(text).join() === expected.map(text).join()) return;
  throw new UserError(
    `${image.name}: channels are ${described(image.channels)}, but the model was trained on ${described(expected)}; ` +
      "state their unit with the sensor's options, or open files of the same sensor",
  );
}

/** Channels with their units, at most six: "thermal [K], red [count]". */
export function described(channels: readonly ImageChannel[]): string {
  const named = channels.slice(0, 6).map((channel) => `${channel.name} [${channel.unit}]`);
  const more = channels.length > 6 ? ` and ${channels.length - 6} more` : "";
  return named.join(", ") + more;
}
