/** How an image is shown: which channels, and the values from darkest to brightest. */

import type { Channel, OpenedImage } from "../engine";
import type { ColourMap } from "./colours";

export type Limits = readonly [low: number, high: number];

export interface Display {
  /** One channel, or those shown as red, green and blue. */
  readonly channels: readonly number[];
  /** Of each channel, in its unit. */
  readonly limits: readonly Limits[];
  /** Of one channel. */
  readonly map: ColourMap;
}

const SAMPLES = 50_000;
const LOW = 0.02;
const HIGH = 0.98;

/** What is shown at first: colours of a camera as colours, else the first channel. */
export function firstDisplay(image: OpenedImage, channels: readonly Channel[]): Display {
  const colours = channels.flatMap((channel, index) => (channel.quantity === "srgb" ? [index] : []));
  const shown = colours.length >= 3 ? colours.slice(0, 3) : [0];
  return displayOf(image, channels, shown, "gray");
}

/** Channels with the limits that suit them. */
export function displayOf(image: OpenedImage, channels: readonly Channel[], shown: readonly number[], map: ColourMap): Display {
  const limits = shown.map((index) => {
    const isColour = channels[index].quantity === "srgb";
    return isColour ? ([0, 255] as const) : percentiles(image.planes[index], LOW, HIGH);
  });
  return { channels: shown, limits, map };
}

export function wholeRange(image: OpenedImage, display: Display): Display {
  const limits = display.channels.map((index) => extremes(image.planes[index]));
  return { ...display, limits };
}

/** The values below which two shares of the pixels lie, of a sample of a plane. */
export function percentiles(plane: Float32Array, low: number, high: number): Limits {
  const step = Math.max(1, Math.floor(plane.length / SAMPLES));
  const sample = new Float32Array(Math.ceil(plane.length / step));
  let size = 0;
  for (let at = 0; at < plane.length; at += step) {
    if (!Number.isFinite(plane[at])) continue;
    sample[size] = plane[at];
    size += 1;
  }
  if (!size) return [0, 1];
  const sorted = sample.subarray(0, size).sort();
  const ends: Limits = [sorted[Math.round(low * (size - 1))], sorted[Math.round(high * (size - 1))]];
  return ends[1] > ends[0] ? ends : widened(extremes(plane));
}

function extremes(plane: Float32Array): Limits {
  let low = Infinity;
  let high = -Infinity;
  for (const value of plane) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? widened([low, high]) : [0, 1];
}

/** Equal limits would divide by zero. */
function widened([low, high]: Limits): Limits {
  return high > low ? [low, high] : [low - 0.5, high + 0.5];
}
