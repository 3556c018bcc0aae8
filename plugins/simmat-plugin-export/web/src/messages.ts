/** What the page and its worker say to each other. */

import type { Prompt } from "./engine";
import type { Window } from "./engine/arrays";

/** What the worker needs besides the code: texts are gzip as base64. */
export interface Parts {
  wasm: string;
  manifest: any;
  /** How files of the sensor are read, see `sensors/sensor.ts`. */
  sensor: any;
  /** What the values of the training images were like; null if that is not known. */
  contract: any;
  /** The training values of each channel, see `engine/spread.ts`. */
  spreads: any;
  /** Name of a graph -> its file. */
  graphs: Record<string, string>;
  useWebGpu: boolean;
}

/** A mask without what the page adds. */
export interface PlainMask {
  window: Window;
  inside: Uint8Array;
  score: number;
  classId: number | null;
  classProbability: number | null;
  point?: readonly [number, number];
}

/** A call: the name of a method of the worker, and its arguments. */
export interface Call {
  id: number;
  method: "start" | "open" | "predict" | "everything" | "classMap" | "measure" | "logits";
  argument: any;
}

/** Ask the worker to stop what runs. */
export interface Cancel {
  cancel: true;
}

/** A result, an error, or how far the work is. */
export type Answer =
  | { id: number; result: any }
  | { id: number; error: string; kind: "user" | "cancelled" | "fault" }
  | { id: number; share: number };

export type { Prompt };
