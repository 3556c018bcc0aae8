/** One model and its current image: what the worker's calls do. */

import * as ort from "onnxruntime-web/wasm";

import { Backend, ClassMap, Measurements, OpenedImage, Prompt, UserError } from "../engine";
import { unpacked } from "../embedded";
import { Parts, PlainMask } from "../messages";
import { boxOf, cutMask, Mask, Window } from "./arrays";
import { ContractDocument, imageWarning, InputContract } from "./contract";
import { Step } from "./everything";
import { Prompt as ModelPrompt } from "./inputs";
import { DECODER_WEIGHTS, DECODERS, ENCODER, MASKS, ModelError, parsedManifest } from "./manifest";
import { measure } from "./measurement";
import { Model } from "./model";
import { Network } from "./network";
import { sensorOf, Sensor } from "./sensors/sensor";
import { SensorImage } from "./sensors/image";
import { Spread, spreadWarning } from "./spread";

/** Threads at most, where the page may use several. */
const MAX_THREADS = 4;
/** Pixels of a side of the image on which the graphics processor is tried. */
const PROBE_SIDE = 32;

/** What `open` of the page gives. */
export interface OpenArguments {
  files: readonly File[];
  options: Readonly<Record<string, string>>;
}

export class Session {
  private model: Model | null = null;
  private sensor: Sensor | null = null;
  private contract: InputContract | null = null;
  private spreads: readonly (Spread | null)[] = [];
  private image: SensorImage | null = null;

  /** Load the graphs. */
  async start(parts: Parts): Promise<Backend> {
    const manifest = parsedManifest(parts.manifest);
    this.sensor = sensorOf(parts.sensor, manifest);
    this.contract = parts.contract && new InputContract(parts.contract as ContractDocument);
    this.spreads = parts.spreads;
    const files = new Map<string, Uint8Array<ArrayBuffer>>();
    const wasm = unpacked(parts.wasm);
    for (const [name, digest] of manifest.files) files.set(name, await fileOf(parts, name, digest));
    ort.env.wasm.wasmBinary = await wasm;
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MAX_THREADS) : 1;
    ort.env.wasm.proxy = false;
    ort.env.logLevel = "error";
    const network = new Network(manifest, (file) => sessionOf(files, file, []));
    const isOnGpu = parts.useWebGpu && (await network.prepare(ENCODER, () => gpuEncoder(files, manifest.channels.length)));
    for (const file of [ENCODER, DECODERS.points, MASKS]) await network.session(file);
    this.model = new Model(network);
    return { name: isOnGpu ? "webgpu" : "wasm", threads: ort.env.wasm.numThreads };
  }

  /** Read the files of an image, and encode it. */
  async open({ files, options }: OpenArguments, step: Step): Promise<OpenedImage> {
    const begin = performance.now();
    const model = this.started();
    this.image = null;
    const image = await this.sensor!.load(files, options);
    await step(0.3);
    const warning = (this.contract && imageWarning(this.contract, image)) || spreadWarning(this.spreads, image);
    const planes = image.planes();
    await model.setImage(planes);
    this.image = image;
    const size = planes.height * planes.width;
    return {
      name: files[0].name,
      width: planes.width,
      height: planes.height,
      // copies, since the page gets them for good
      planes: Array.from({ length: planes.count }, (_, index) => planes.data.slice(index * size, (index + 1) * size)),
      warnings: warning ? [warning] : [],
      seconds: (performance.now() - begin) / 1000,
      ...(image.pixelSize && { pixelSize: image.pixelSize }),
    };
  }

  /** Segment the object that a prompt marks. */
  async predict(prompt: Prompt): Promise<PlainMask> {
    const found = await this.started().predict(promptOf(prompt));
    const { score, classId, classProbability } = found;
    return { ...cropped(found.mask, found.window), score, classId, classProbability };
  }

  /** The logits of a prompt at the size of the decoder and its score, for comparing with another runtime. */
  async logits(prompt: Prompt): Promise<{ values: Float32Array; score: number }> {
    const found = await this.started().predict(promptOf(prompt));
    return { values: found.lowResLogits.data.slice(), score: found.score };
  }

  /** Find every object, best first. */
  async everything(_: null, step: Step): Promise<{ masks: PlainMask[] }> {
    const found = await this.started().everything(step);
    const masks = found.map(({ window, crop, score, classId, classProbability, point }) => {
      return { window, inside: crop.data, score, classId, classProbability, point };
    });
    return { masks };
  }

  /** The class of each pixel. */
  async classMap(_: null, step: Step): Promise<ClassMap> {
    const model = this.started();
    const found = await model.semantic(step);
    const [height, width] = model.sizeHw;
    return { ...found, height, width };
  }

  /** Measure objects in the current image. */
  async measure(masks: readonly { window: Window; inside: Uint8Array }[]): Promise<Measurements> {
    if (this.image === null) throw new UserError("no image is open; open one first");
    const objects = masks.map(({ window, inside }) => {
      const [y0, x0, y1, x1] = window;
      return { window, crop: { height: y1 - y0, width: x1 - x0, data: inside } };
    });
    return measure(this.image, objects);
  }

  private started(): Model {
    if (this.model === null) throw new ModelError("the model is not loaded yet");
    return this.model;
  }
}

async function fileOf(parts: Parts, name: string, digest: string): Promise<Uint8Array<ArrayBuffer>> {
  const text = parts.graphs[name];
  if (!text) throw new UserError(`this page is damaged: ${name} is missing; export it again`);
  const bytes = await unpacked(text);
  // only where the browser offers it: gzip has a checksum of its own
  if (crypto.subtle) {
    const found = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    const hex = Array.from(found, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (hex !== digest) {
      throw new UserError(`this page is damaged: ${name} has another sha256 than its manifest states; export it again`);
    }
  }
  return bytes;
}

/** Load a graph, on further processors than the one that every browser has, if it can. */
async function sessionOf(
  files: ReadonlyMap<string, Uint8Array<ArrayBuffer>>,
  name: string,
  further: readonly string[],
): Promise<ort.InferenceSession> {
  const graph = files.get(name);
  if (graph === undefined) throw new ModelError(`the model in this page has no ${name}; export it again`);
  const isDecoder = Object.values<string>(DECODERS).includes(name);
  return await ort.InferenceSession.create(graph, {
    executionProviders: [...further, "wasm"],
    ...(isDecoder && { externalData: [{ path: DECODER_WEIGHTS, data: files.get(DECODER_WEIGHTS)! }] }),
  });
}

/** Load the encoder of C channels on the graphics processor, and encode a small image: some lack half precision. */
async function gpuEncoder(
  files: ReadonlyMap<string, Uint8Array<ArrayBuffer>>,
  channels: number,
): Promise<ort.InferenceSession> {
  const session = await sessionOf(files, ENCODER, ["webgpu"]);
  const values = new Float32Array(channels * PROBE_SIDE ** 2);
  await session.run({ image: new ort.Tensor("float32", values, [1, channels, PROBE_SIDE, PROBE_SIDE]) });
  return session;
}

function promptOf(prompt: Prompt): ModelPrompt {
  const coords = prompt.points.flatMap((point) => [point.x, point.y]);
  const labels = prompt.points.map((point) => Number(point.onObject));
  return new ModelPrompt(coords, labels, prompt.box ?? null);
}

/** A mask of a part of the image, cropped to what is inside of it. */
function cropped(mask: Mask, [y0, x0]: Window): { window: Window; inside: Uint8Array } {
  const box = boxOf(mask);
  if (box === null) return { window: [y0, x0, y0, x0], inside: new Uint8Array(0) };
  const window: Window = [box[0] + y0, box[1] + x0, box[2] + y0, box[3] + x0];
  return { window, inside: cutMask(mask, box).data };
}
