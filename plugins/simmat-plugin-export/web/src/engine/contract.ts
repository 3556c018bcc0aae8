/**
 * The input contract: whether the values of an image agree with those of the training images: `simmat.sensors.contract`.
 *
 * An image is described by quantiles of each channel and by the correlations between channels. A fault, such as another
 * gain, changes these numbers of every training image in a known way. So two explanations of a new image are compared:
 * it is like the training images, or like the training images after the fault. A fault is named if the ratio of the two
 * likelihoods is larger than it is for training images that were left out. One image is judged at a time.
 */

import { argmax } from "./arrays";
import type { SensorImage } from "./sensors/image";
import { inverted, Matrix } from "./matrices";

/** Quantiles of a histogram, from the least value to the largest. */
const LEVELS = 65;
/** Quantiles by which images are compared. */
const KEPT = [0, 1, 3, 6, 16, 32, 48, 58, 61, 63, LEVELS - 1];
const SAMPLED_PIXELS = 1 << 14;
/** Channels up to which their order is checked. */
const MAX_ORDERED = 16;
const HALF_GAINS = [2, 4, 16, 64, 100, 256, 1000, 10000];
/** Gains that are tried, and one divided by each. */
const GAINS = [...HALF_GAINS, ...HALF_GAINS.map((gain) => 1 / gain)];
/** Offsets that are tried up and down, as shares of the range of the training values. */
const OFFSETS = [0.1, 0.5];
const ZERO_C = 273.15;
const FULL_SCALES = [255, 1023, 4095, 16383, 65535];
/** Degrees of freedom of the t-distributions: with few, a strange image says little. */
const FREEDOM = 4;
const FLOOR = 0.05;
const FOLDS = 5;
const NODATA_SHARE = 0.005;
const LEAST_RATIO = 2;

/** One way in which an image differs from the training images. */
export interface Fault {
  kind: "gain" | "offset" | "order" | "nodata";
  /** Index of the channel, or of the two that are swapped. */
  channels: readonly number[];
  /** Factor of a gain, offset in the channel's unit, or the value of nodata. */
  amount: number;
  text: string;
}

/** What a bundle holds: `InputContract` in Python. */
export interface ContractDocument {
  names: readonly string[];
  units: readonly string[];
  /** (C, LEVELS) quantiles of the values of all training images. */
  histograms: readonly (readonly number[])[];
  /** base64 of (N, C, K) little-endian float32. */
  images: string;
  /** base64 of (N, C, C); "" for many channels. */
  correlations: string;
  likeness: number;
}

/** The quantiles of an image: of each channel, K numbers; and the correlations between channels. */
interface Described {
  kept: number[][];
  correlation: number[][];
}

/** What the values of the training images were like. */
export class InputContract {
  private readonly images: Described[];
  private trained: TrainingImages | null = null;

  constructor(private readonly document: ContractDocument) {
    const count = document.names.length;
    const kept = floatsOf(document.images);
    const correlations = floatsOf(document.correlations);
    const ordered = correlations.length ? count : 0;
    const images = kept.length / (count * KEPT.length);
    this.images = Array.from({ length: images }, (_, image) => ({
      kept: rowsOf(kept, image * count * KEPT.length, count, KEPT.length),
      correlation: rowsOf(correlations, image * ordered * ordered, ordered, ordered),
    }));
  }

  /** What is wrong with an image; nothing if it fits, or if it has other channels. */
  check(image: SensorImage): Fault[] {
    const picks = this.document.names.map((name, index) =>
      image.channels.findIndex((channel) => channel.name === name && channel.unit === this.document.units[index]),
    );
    if (picks.includes(-1)) return [];
    const { values, valid } = thinned(image, picks);
    const faults: Fault[] = [];
    for (const [channel, own] of values.entries()) {
      for (const fault of this.fillValues(channel, measured(own, valid[channel]))) {
        own.forEach((value, pixel) => {
          if (value === fault.amount) valid[channel][pixel] = 0;
        });
        faults.push(fault);
      }
    }
    const found = describedPixels(values, valid);
    if (found.kept.every((row) => row.every(Number.isFinite))) faults.push(...this.changes(found));
    return faults;
  }

  /** Numbers that many pixels have, far outside of all others, among the values of a channel. */
  private *fillValues(channel: number, values: Float32Array): Generator<Fault> {
    if (!values.length) return;
    const low = this.document.histograms[channel][0];
    const high = this.document.histograms[channel][LEVELS - 1];
    const span = Math.max(high - low, 1e-12);
    const least = values.reduce((one, other) => Math.min(one, other), Infinity);
    const largest = values.reduce((one, other) => Math.max(one, other), -Infinity);
    for (const value of least === largest ? [least, least] : [least, largest]) {
      let same = 0;
      let nearest = Infinity;
      for (const other of values) {
        if (other === value) same++;
        else nearest = Math.min(nearest, Math.abs(Math.fround(other - value)));
      }
      const share = same / values.length;
      const outside = Math.max(low - value, value - high);
      if (outside <= span / 2 || !(share >= NODATA_SHARE && share < 1) || nearest < span / 4) continue;
      const text =
        `${Math.round(share * 100)}% of the pixels of channel '${this.document.names[channel]}' are ${short(value)} ` +
        `${this.document.units[channel]}, far outside of the training values (${short(low)} to ${short(high)}), as a ` +
        "number that means no measurement";
      yield { kind: "nodata", channels: [channel], amount: value, text };
    }
  }

  /** The gain or offset of each channel, or the pair of swapped channels, that explains an image. */
  private changes(image: Described): Fault[] {
    const { names, units, likeness } = this.document;
    this.trained ??= new TrainingImages(this.images, units, likeness);
    const { changes, orders } = this.trained.ratios(image);
    const [changeLimit, orderLimit] = this.trained.limits();
    const wrong = changes.map((row) => Math.max(...row)).map((ratio) => (ratio > changeLimit ? ratio : -Infinity));
    if (Math.max(0, ...orders) > Math.max(orderLimit, ...wrong)) {
      const [first, second] = this.trained.pairs[argmax(orders)];
      const text = `channels '${names[first]}' and '${names[second]}' look swapped`;
      return [{ kind: "order", channels: [first, second], amount: NaN, text }];
    }
    const found: Fault[] = [];
    for (const [channel, ratio] of wrong.entries()) {
      if (ratio === -Infinity) continue;
      const gain = this.trained.gains[1 + argmax(changes[channel])];
      const there = KEPT.map((_, level) => median(this.images.map((one) => one.kept[channel][level])));
      found.push(this.changed(channel, gain, image.kept[channel], there));
    }
    return found;
  }

  /** Name the change of a channel between its quantiles here and in training; an offset has the gain 1. */
  private changed(channel: number, gain: number, here: readonly number[], there: readonly number[]): Fault {
    const unit = this.document.units[channel];
    const middle = Math.floor(KEPT.length / 2);
    const now = here[middle];
    const before = there[middle];
    const values = `the values of channel '${this.document.names[channel]}' are about`;
    const medians = `(median ${short(now)} ${unit}, in training ${short(before)} ${unit})`;
    if (gain === 1) {
      const offset = median(here.map((value, level) => value - there[level]));
      const size = short(Math.abs(offset), 3);
      const text = `${values} ${size} ${unit} ${offset > 0 ? "above" : "below"} the training values ${medians}`;
      return { kind: "offset", channels: [channel], amount: offset, text };
    }
    const factor = before * now > 0 ? now / before : gain;
    const text = `${values} ${short(factor, 3)} times the training values ${medians}`;
    return { kind: "gain", channels: [channel], amount: factor, text };
  }
}

/** How an image differs from the training images, as the page says it; "" if it does not. */
export function imageWarning(contract: InputContract, image: SensorImage): string {
  const texts = contract.check(image).map((fault) => fault.text);
  if (!texts.length) return "";
  if (texts.length > 4) texts.splice(4, texts.length, `${texts.length - 4} more channels differ`);
  return `${texts.join("; ")}; are unit, scale, order of channels and nodata the same?`;
}

function short(value: number, digits = 4): string {
  return String(Number(value.toPrecision(digits)));
}

function floatsOf(text: string): Float32Array {
  const binary = atob(text);
  const bytes = Uint8Array.from(binary, (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
}

function rowsOf(values: Float32Array, start: number, rows: number, columns: number): number[][] {
  return Array.from({ length: rows }, (_, row) => {
    return Array.from(values.subarray(start + row * columns, start + (row + 1) * columns));
  });
}

/** Evenly spaced pixels of some channels, as many as a contract looks at. */
function thinned(image: SensorImage, picks: readonly number[]): { values: Float32Array[]; valid: Uint8Array[] } {
  const { height, width } = image;
  const step = Math.max(Math.ceil(Math.sqrt((height * width) / SAMPLED_PIXELS)), 1);
  const places: number[] = [];
  for (let y = 0; y < height; y += step) for (let x = 0; x < width; x += step) places.push(y * width + x);
  return {
    values: picks.map((index) => Float32Array.from(places, (place) => image.data[index][place])),
    valid: picks.map((index) => Uint8Array.from(places, (place) => image.valid[index][place])),
  };
}

function measured(values: Float32Array, valid: Uint8Array): Float32Array {
  return values.filter((_, pixel) => valid[pixel] === 1);
}

function describedPixels(values: readonly Float32Array[], valid: readonly Uint8Array[]): Described {
  const kept = values.map((own, channel) => {
    const sorted = measured(own, valid[channel]).sort();
    return KEPT.map((level) => (sorted.length ? Math.fround(quantileOf(sorted, level / (LEVELS - 1))) : NaN));
  });
  return { kept, correlation: values.length > MAX_ORDERED ? [] : correlationOf(values, valid) };
}

function correlationOf(values: readonly Float32Array[], valid: readonly Uint8Array[]): number[][] {
  const common: number[] = [];
  for (let pixel = 0; pixel < values[0].length; pixel++) {
    if (valid.every((own) => own[pixel])) common.push(pixel);
  }
  const identity = values.map((_, row) => values.map((__, column) => Number(row === column)));
  if (common.length < 2) return identity;
  const centred = values.map((own) => {
    let sum = 0;
    for (const pixel of common) sum += own[pixel];
    const mean = sum / common.length;
    return Float64Array.from(common, (pixel) => own[pixel] - mean);
  });
  const product = (one: Float64Array, other: Float64Array) => {
    let sum = 0;
    for (let index = 0; index < one.length; index++) sum += one[index] * other[index];
    return sum;
  };
  return centred.map((one) => {
    return centred.map((other) => {
      // a channel of one value has no correlation
      const found = product(one, other) / Math.sqrt(product(one, one) * product(other, other));
      return Number.isFinite(found) ? Math.fround(Math.min(Math.max(found, -1), 1)) : 0;
    });
  });
}

/** A quantile of rising values, linear between two of them. */
export function quantileOf(sorted: ArrayLike<number>, share: number): number {
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}

function median(values: readonly number[]): number {
  return quantileOf(Float64Array.from(values).sort(), 0.5);
}

/** The middle and the spread of the training values, by which quantiles become comparable numbers. */
class Scale {
  readonly middle: number[] = [];
  readonly spread: number[] = [];
  readonly range: number[] = [];

  constructor(images: readonly Described[]) {
    for (let channel = 0; channel < images[0].kept.length; channel++) {
      const inner = Float64Array.from(images.flatMap((one) => one.kept[channel].slice(1, -1))).sort();
      const least = Float64Array.from(images, (one) => one.kept[channel][0]).sort();
      const largest = Float64Array.from(images, (one) => one.kept[channel][KEPT.length - 1]).sort();
      const width = quantileOf(largest, 0.99) - quantileOf(least, 0.01);
      this.middle.push(quantileOf(inner, 0.5));
      this.spread.push(Math.max((quantileOf(inner, 0.75) - quantileOf(inner, 0.25)) / 1.349, 1e-3 * width + 1e-12));
      this.range.push(width);
    }
  }

  /** The numbers of a channel relative to the training values; large ones count by their logarithm. */
  scaled(channel: number, values: readonly number[]): number[] {
    return values.map((value) => Math.asinh((value - this.middle[channel]) / this.spread[channel]));
  }
}

/** A multivariate t-distribution of rows of K numbers. */
class Distribution {
  private readonly mean: number[];
  private readonly inverse: Matrix;
  private readonly logDet: number;

  constructor(rows: readonly (readonly number[])[]) {
    const size = rows[0].length;
    const mean = Array.from({ length: size }, (_, place) => rows.reduce((sum, row) => sum + row[place], 0) / rows.length);
    const covariance = mean.map((_, one) =>
      mean.map((__, other) => {
        const sum = rows.reduce((total, row) => total + (row[one] - mean[one]) * (row[other] - mean[other]), 0);
        return sum / (rows.length - 1) + (one === other ? FLOOR ** 2 : 0);
      }),
    );
    this.mean = mean;
    [this.inverse, this.logDet] = inverted(covariance);
  }

  logLikelihood(row: readonly number[], factor: number): number {
    const off = row.map((value, place) => value - this.mean[place]);
    let distance = 0;
    for (const [one, line] of this.inverse.entries()) {
      for (const [other, value] of line.entries()) distance += off[one] * value * off[other];
    }
    const tail = (Math.log1p(distance / factor / FREEDOM) * (FREEDOM + row.length)) / 2;
    return -tail - this.logDet / 2;
  }
}

/** How the numbers of N images are distributed without a fault, and with each fault. */
class TrainingImages {
  readonly gains: number[];
  readonly pairs: [number, number][] = [];
  private readonly scale: Scale;
  /** For each channel: no change, then each gain and offset. */
  private readonly changes: Distribution[][];
  private readonly orders: [Distribution, Distribution][];
  private found: [number, number] | null = null;

  constructor(
    private readonly images: readonly Described[],
    private readonly units: readonly string[],
    private readonly likeness: number,
  ) {
    this.scale = new Scale(images);
    this.gains = [1, ...GAINS, ...new Array<number>(2 * OFFSETS.length).fill(1)];
    this.changes = units.map((unit, channel) => this.changesOf(channel, unit));
    if (images[0].correlation.length) {
      for (let one = 0; one < units.length; one++) {
        for (let other = one + 1; other < units.length; other++) this.pairs.push([one, other]);
      }
    }
    this.orders = this.pairs.map((pair) => {
      const rows = images.map((image) => this.difference(pair, image));
      return [new Distribution(rows), new Distribution(rows.map((row) => row.map((value) => -value)))];
    });
  }

  private changesOf(channel: number, unit: string): Distribution[] {
    const steps = OFFSETS.map((share) => share * this.scale.range[channel]);
    if (unit === "K") steps[steps.length - 1] = ZERO_C;
    const offsets = [...new Array<number>(1 + GAINS.length).fill(0), ...steps, ...steps.map((step) => -step)];
    const every = this.images.flatMap((image) => image.kept[channel]);
    const low = Math.min(...every);
    const high = Math.max(...every);
    // a camera of whole counts stores no number below 0, or beyond its largest
    const floor = low >= 0 ? 0 : -Infinity;
    const ceiling = FULL_SCALES.includes(high) ? high : Infinity;
    return this.gains.map((gain, change) => {
      const rows = this.images.map((image) => {
        const stored = image.kept[channel].map((value) => value * gain + offsets[change]);
        return this.scale.scaled(
          channel,
          stored.map((value) => Math.min(Math.max(value, floor), ceiling)),
        );
      });
      return new Distribution(rows);
    });
  }

  /** The numbers of a pair of channels, which change their sign if the two are swapped. */
  private difference([one, other]: readonly [number, number], { kept, correlation }: Described): number[] {
    const middle = (this.scale.middle[one] + this.scale.middle[other]) / 2;
    const spread = (this.scale.spread[one] + this.scale.spread[other]) / 2;
    const scaled = (channel: number) => kept[channel].map((value) => Math.asinh((value - middle) / spread));
    const first = scaled(one);
    const second = scaled(other);
    const links: number[] = [];
    for (let channel = 0; channel < kept.length; channel++) {
      if (channel !== one && channel !== other) links.push(correlation[one][channel] - correlation[other][channel]);
    }
    return [...first.map((value, level) => value - second[level]), ...links];
  }

  /** The log likelihood ratios of an image: of each change of each channel, and of each swapped pair, to no fault. */
  ratios(image: Described): { changes: number[][]; orders: number[] } {
    // of one image; the likeness counts for several together
    const factor = this.likeness + (1 - this.likeness);
    const changes = this.changes.map((distributions, channel) => {
      const row = this.scale.scaled(channel, image.kept[channel]);
      const [none, ...others] = distributions.map((one) => one.logLikelihood(row, factor));
      return others.map((one) => one - none);
    });
    const orders = this.orders.map(([kept, swapped], pair) => {
      const row = this.difference(this.pairs[pair], image);
      return swapped.logLikelihood(row, factor) - kept.logLikelihood(row, factor);
    });
    return { changes, orders };
  }

  /** The ratios that images of the own sensor do not exceed: of a change, and of an order. */
  limits(): [number, number] {
    if (this.found === null) {
      let change = LEAST_RATIO;
      let order = LEAST_RATIO / 2;
      const folds = this.images.map((_, index) => Math.floor((index * FOLDS) / this.images.length));
      for (let fold = 0; fold < FOLDS; fold++) {
        const seen = this.images.filter((_, index) => folds[index] !== fold);
        const others = new TrainingImages(seen, this.units, this.likeness);
        for (const image of this.images.filter((_, index) => folds[index] === fold)) {
          const ratios = others.ratios(image);
          change = Math.max(change, ...ratios.changes.flat());
          order = Math.max(order, ...ratios.orders);
        }
      }
      this.found = [change, order];
    }
    return this.found;
  }
}
