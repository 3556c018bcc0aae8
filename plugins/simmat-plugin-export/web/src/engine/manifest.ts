/** The manifest of an exported model: `simmat_runtime.manifest`. The page holds its sha256, so few fields are checked. */

export const FORMAT = 1;
export const ENCODER = "encoder.onnx";
/** A decoder for each kind of prompt: with points, with a box, with both; and the weights that they share. */
export const DECODERS = {
  points: "decoder-points.onnx",
  box: "decoder-box.onnx",
  both: "decoder-points-box.onnx",
} as const;
export const DECODER_WEIGHTS = "decoder.bin";
export const DENSE = "dense.onnx";
export const MASKS = "masks.onnx";

/** The page has no complete model, or the model cannot do what is requested. */
export class ModelError extends Error {}

/** One plane of the sensor. */
export interface SensorChannel {
  name: string;
  unit: string;
  quantity: string;
  /** Smallest and largest valid value; null without bounds. */
  validRange: readonly [number, number] | null;
}

/** The classes of the dense head. */
export interface Dense {
  /** Whether index 0 of the class map is background. */
  background: boolean;
  /** Label value of each class of objects; null for objects without a class. */
  classes: readonly (number | null)[];
  /** By which the class probabilities of an object are calibrated. */
  temperature: number;
}

/** One of several sensors whose planes make an image. */
export interface ManifestSensor {
  name: string;
  /** For each of its channels, whether values of neighbours may be averaged. */
  averaged: readonly boolean[];
  /** (3, 3), from homogeneous xy pixels of the first sensor's image to those of this one's; null on one pixel grid. */
  matrix: readonly (readonly number[])[] | null;
  /** Width and height of the images that the matrix is for; null for any. */
  size: readonly [number, number] | null;
}

interface Curve {
  predicted: readonly number[];
  true: readonly number[];
}

/** The description of an exported model. */
export interface Manifest {
  modality: string;
  channels: readonly SensorChannel[];
  imageSize: number;
  aspect: string;
  /** Longest side of an image in pixels that is looked at as a whole; larger ones are cut into windows. */
  largest: number;
  /** Side of these windows in pixels. */
  window: number;
  /** Height and width of the decoder's masks. */
  maskSize: readonly [number, number];
  /** Number of levels of the embedding. */
  levels: number;
  dense: Dense | null;
  classNames: ReadonlyMap<number, string>;
  calibration: Readonly<Record<string, Curve>>;
  sensors: readonly ManifestSensor[];
  /** Name -> sha256 of the graphs. */
  files: ReadonlyMap<string, string>;
}

/** Read a manifest's json values; raise ModelError for another format. */
export function parsedManifest(document: any): Manifest {
  if (document?.format !== FORMAT) {
    throw new ModelError(
      `the model in this page has format ${document?.format}, but the page reads ${FORMAT}; export it again`,
    );
  }
  return {
    modality: document.modality,
    channels: document.channels.map(parsedChannel),
    imageSize: document.image_size,
    aspect: document.aspect,
    largest: document.largest,
    window: document.window,
    maskSize: document.mask_size,
    levels: document.levels,
    dense: document.dense && { temperature: 1, ...document.dense },
    classNames: new Map(Object.entries<string>(document.class_names).map(([value, name]) => [Number(value), name])),
    calibration: document.calibration ?? {},
    sensors: document.sensors ?? [],
    files: new Map(Object.entries<any>(document.files).map(([name, file]) => [name, file.sha256])),
  };
}

function parsedChannel(document: any): SensorChannel {
  const bounds = document.valid_range;
  return {
    name: document.name,
    unit: document.unit,
    quantity: document.quantity,
    validRange: bounds && [bounds[0] ?? -Infinity, bounds[1] ?? Infinity],
  };
}

/** The mean IoU that the score of a "click", "box" or "object" is worth; itself if this is unknown. */
export function calibratedScore(manifest: Manifest, kind: string, score: number): number {
  const curve = manifest.calibration[kind];
  if (!curve) return score;
  return interpolated(score, curve.predicted, curve.true);
}

/** Interpolate between rising xs, constant outside. */
export function interpolated(x: number, xs: readonly number[], ys: readonly number[]): number {
  if (x <= xs[0]) return ys[0];
  for (let index = 1; index < xs.length; index++) {
    if (x < xs[index]) {
      const share = (x - xs[index - 1]) / (xs[index] - xs[index - 1]);
      return ys[index - 1] + share * (ys[index] - ys[index - 1]);
    }
  }
  return ys[ys.length - 1];
}

/** p^(1/T) of the probabilities of the classes of one object, divided by their sum. */
export function calibratedClasses(dense: Dense, probabilities: readonly number[]): number[] {
  const inside = probabilities.map((one) => Math.min(Math.max(one, 1e-9), 1));
  const largest = Math.max(...inside);
  const powers = inside.map((one) => (one / largest) ** (1 / dense.temperature));
  const sum = powers.reduce((total, one) => total + one, 0);
  return powers.map((one) => one / sum);
}
