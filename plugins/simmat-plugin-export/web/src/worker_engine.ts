/** The engine of the page: a worker computes, so that the page never waits. */

import {
  Backend,
  Cancelled,
  ClassMap,
  Engine,
  FoundMask,
  Measurements,
  ModelInfo,
  OpenedImage,
  Progress,
  Prompt,
  UserError,
} from "./engine";
import { embeddedJson, embeddedText, unpacked } from "./embedded";
import { Answer, Call, Parts, PlainMask } from "./messages";

interface Waiting {
  resolve: (result: any) => void;
  reject: (error: Error) => void;
  progress?: Progress;
  begin: number;
}

export class WorkerEngine implements Engine {
  readonly info: ModelInfo;
  private worker: Worker | null = null;
  private readonly waiting = new Map<number, Waiting>();
  private calls = 0;

  /** Read what the page states about the model; UserError if the page is damaged. */
  constructor(private readonly document: Document) {
    const info = embeddedJson(document, "simmat-info");
    const classes = Object.entries<any>(info.classes).map(([value, one]): [number, any] => [Number(value), one]);
    this.info = { ...info, classes: new Map(classes) };
  }

  async start(): Promise<Backend> {
    const useWebGpu = await hasGpu();
    const kind = useWebGpu && this.document.getElementById("simmat-wasm-webgpu") ? "webgpu" : "plain";
    const code = await unpacked(embeddedText(this.document, `simmat-worker-${kind}`));
    const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    this.worker = new Worker(address);
    URL.revokeObjectURL(address);
    this.worker.onmessage = (event: MessageEvent<Answer>) => this.hear(event.data);
    this.worker.onerror = (event) => this.fail(`the page's worker stopped: ${event.message ?? "out of memory"}`);
    const model = embeddedJson(this.document, "simmat-model");
    const graphs: Record<string, string> = {};
    for (const name of Object.keys(model.manifest.files)) graphs[name] = embeddedText(this.document, `simmat-${name}`);
    const wasm = embeddedText(this.document, `simmat-wasm-${kind}`);
    const parts: Parts = { ...model, wasm, graphs, useWebGpu: kind === "webgpu" };
    return await this.call("start", parts);
  }

  async open(
    files: readonly File[],
    options: Readonly<Record<string, string>>,
    progress?: Progress,
  ): Promise<OpenedImage> {
    return await this.call("open", { files, options }, progress);
  }

  async predict(prompt: Prompt): Promise<FoundMask> {
    return maskOf(await this.call("predict", prompt));
  }

  async everything(progress?: Progress): Promise<FoundMask[]> {
    const { masks } = await this.call("everything", null, progress);
    return masks.map(maskOf);
  }

  async classMap(progress?: Progress): Promise<ClassMap> {
    return await this.call("classMap", null, progress);
  }

  async measure(masks: readonly FoundMask[]): Promise<Measurements> {
    const plain = masks.map(({ x, y, width, height, inside }) => ({
      window: [y, x, y + height, x + width],
      inside,
    }));
    return await this.call("measure", plain);
  }

  cancel(): void {
    this.worker?.postMessage({ cancel: true });
  }

  /** The logits of a prompt at the size of the decoder, for comparing with another runtime. */
  async logits(prompt: Prompt): Promise<{ values: Float32Array; score: number }> {
    return await this.call("logits", prompt);
  }

  private call(method: Call["method"], argument: any, progress?: Progress): Promise<any> {
    if (this.worker === null) return Promise.reject(new UserError("the model is not loaded yet"));
    const id = ++this.calls;
    this.worker.postMessage({ id, method, argument } satisfies Call);
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, progress, begin: performance.now() });
    });
  }

  private hear(answer: Answer): void {
    const waiting = this.waiting.get(answer.id);
    if (waiting === undefined) return;
    if ("share" in answer) {
      const seconds = (performance.now() - waiting.begin) / 1000;
      const left = answer.share > 0.05 ? (seconds * (1 - answer.share)) / answer.share : undefined;
      waiting.progress?.(answer.share, left);
      return;
    }
    this.waiting.delete(answer.id);
    if ("result" in answer) waiting.resolve(answer.result);
    else waiting.reject(errorOf(answer.kind, answer.error));
  }

  private fail(message: string): void {
    for (const waiting of this.waiting.values()) waiting.reject(new Error(message));
    this.waiting.clear();
  }
}

function errorOf(kind: "user" | "cancelled" | "fault", message: string): Error {
  if (kind === "cancelled") return new Cancelled(message);
  return kind === "user" ? new UserError(message) : new Error(message);
}

function maskOf({ window, inside, score, classId, classProbability, point }: PlainMask): FoundMask {
  const [y0, x0, y1, x1] = window;
  let area = 0;
  for (const value of inside) area += value;
  return {
    x: x0,
    y: y0,
    width: x1 - x0,
    height: y1 - y0,
    inside,
    area,
    score,
    ...(classId !== null && { classId, classProbability: classProbability ?? undefined }),
    ...(point && { prompt: { points: [{ x: point[0], y: point[1], onObject: true }] } }),
  };
}

/** Whether the browser has a graphics processor for WebGPU. */
async function hasGpu(): Promise<boolean> {
  try {
    const gpu = (navigator as any).gpu;
    return gpu !== undefined && (await gpu.requestAdapter()) !== null;
  } catch {
    return false;
  }
}
