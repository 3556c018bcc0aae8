/**
 * What the page asks of the model: an image is opened once, then prompts, objects and the class map are asked for.
 *
 * The page is written against this interface alone. `worker_engine.ts` answers it with a worker, in which everything
 * is computed, so that the page never waits.
 */

import type { Mask } from "shared/masks.js";

/** A plane of the sensor. */
export interface Channel {
  name: string;
  /** Such as "kelvin", "m" or "count". */
  unit: string;
  quantity: string;
  /** The unit that people read, such as °C for kelvin: shown = factor * value + offset. */
  shown?: { unit: string; factor: number; offset: number };
}

/** A question that a sensor's file does not answer, such as the unit of its numbers, with the answer of the training. */
export interface SensorOption {
  name: string;
  help: string;
  /** The allowed values; empty for free text. */
  choices: readonly string[];
  value: string;
}

/** What is known about the model without loading its graphs. */
export interface ModelInfo {
  /** The title of the page. */
  title: string;
  modality: string;
  channels: readonly Channel[];
  options: readonly SensorOption[];
  /** Kinds of files that can be opened, as for `<input accept>`: ".tif", ".png" … */
  accepts: readonly string[];
  /** Names of the files of one image, where there are several; else one file is one image. */
  sources?: readonly string[];
  /** Label value -> name and colour "#rrggbb"; empty for a model without classes. */
  classes: ReadonlyMap<number, { name: string; colour: string }>;
  /** Whether the model finds objects' classes, and draws class maps. */
  hasClassMap: boolean;
  /** The model card as rows of a table, and its picture as a data URL; empty if there is none. */
  card: readonly { name: string; value: string }[];
  picture: string;
  /** Licences of what the page contains. */
  notices?: readonly { name: string; text: string }[];
}

/** Where the graphs run. */
export interface Backend {
  name: "webgpu" | "wasm";
  threads: number;
}

/** An opened image. */
export interface OpenedImage {
  name: string;
  width: number;
  height: number;
  /** For each channel: its values (height * width, in the channel's unit), NaN where nothing was measured. */
  planes: readonly Float32Array[];
  /** Sentences about what does not fit the model: a gain, a unit, swapped bands … Empty if all is well. */
  warnings: readonly string[];
  /** Seconds until the image was ready for clicks. */
  seconds: number;
  /** Side of a pixel, if the file states it: 0.65 µm or 10 m. */
  pixelSize?: { value: number; unit: "m" | "µm" };
}

/** What marks one object, in pixels; (0, 0) is the centre of the top-left pixel. */
export interface Prompt {
  points: readonly { x: number; y: number; onObject: boolean }[];
  /** x0, y0, x1, y1: outer edges, from 0 to width and height. */
  box?: readonly [number, number, number, number];
}

/** The mask of one object that the model found or a person drew. */
export interface FoundMask extends Mask {
  /** Predicted IoU, 0 to 1, calibrated where the model has a calibration. */
  score: number;
  /** Label value, and its probability; undefined without classes. */
  classId?: number;
  classProbability?: number;
  /** What found it, so that a correction can go on from there. */
  prompt?: Prompt;
}

/** The class of each pixel. */
export interface ClassMap {
  width: number;
  height: number;
  /** (height * width) label values. */
  labels: Uint32Array;
  /** The label value of pixels without a measurement. */
  nodata: number;
}

/** What is measured of an object; `values` has a row for each column of `columns`. */
export interface Measurements {
  columns: readonly { name: string; unit: string }[];
  rows: readonly (readonly number[])[];
}

/** Share of the work that is done, 0 to 1, and how long it has left in seconds, if known. */
export type Progress = (share: number, secondsLeft?: number) => void;

/** An error that the user can do something about; its message says what. */
export class UserError extends Error {}

export interface Engine {
  readonly info: ModelInfo;
  /** Load the graphs. Called once; the page can already show everything of `info`. */
  start(): Promise<Backend>;
  /** Read the files of one image (several sensors have several), and encode it. The former image is forgotten. */
  open(
    files: readonly File[],
    options: Readonly<Record<string, string>>,
    progress?: Progress,
  ): Promise<OpenedImage>;
  /** Segment the object that a prompt marks. */
  predict(prompt: Prompt): Promise<FoundMask>;
  /** Find every object, best first. */
  everything(progress?: Progress): Promise<FoundMask[]>;
  /** The class of each pixel. Only if `info.hasClassMap`. */
  classMap(progress?: Progress): Promise<ClassMap>;
  /** Measure objects in the current image. */
  measure(masks: readonly FoundMask[]): Promise<Measurements>;
  /** Stop what runs; its promise is rejected with `Cancelled`. */
  cancel(): void;
}

/** The work was stopped by `cancel`. */
export class Cancelled extends Error {}
