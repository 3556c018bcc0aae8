/** An engine without a model, for tests of the page: hot circles in a cold image, whose masks are the circles. */

import {
  Cancelled, UserError, type Backend, type ClassMap, type Engine, type FoundMask, type Measurements, type ModelInfo, type OpenedImage,
  type Progress, type Prompt,
} from "../../engine";

interface Circle {
  x: number;
  y: number;
  radius: number;
}

const KELVIN = { unit: "°C", factor: 1, offset: -273.15 };
const CLASSES = new Map([
  [1, { name: "crop", colour: "#2bb58a" }],
  [2, { name: "weed", colour: "#e69f00" }],
]);
const STEP_MS = 30;

export function mockInfo(hasClasses: boolean): ModelInfo {
  return {
    title: hasClasses ? "Crops and weeds from the air" : "Hot parts of panels",
    modality: hasClasses ? "multispectral" : "thermal",
    channels: hasClasses
      ? ["blue", "green", "red", "nir"].map((name) => ({ name, unit: "1", quantity: "reflectance" }))
      : [{ name: "thermal", unit: "K", quantity: "brightness_temperature", shown: KELVIN }],
    options: hasClasses ? [] : [
      { name: "unit", help: "What the numbers of the files are", choices: ["kelvin", "centikelvin", "celsius"], value: "centikelvin" },
    ],
    accepts: [".png", ".tif", ".tiff", ".npy"],
    classes: hasClasses ? CLASSES : new Map(),
    hasClassMap: hasClasses,
    card: [
      { name: "Trained on", value: "312 images, 4,120 objects" },
      { name: "Score (mIoU, validation)", value: "0.87 from one click, 0.91 from a box" },
      { name: "Found without clicks", value: "93 of 100 objects" },
      { name: "Limits", value: "Objects smaller than 8 pixels are missed. Not tested on images from above 120 m." },
      { name: "Foundation model", value: "lite (Apache-2.0)" },
    ],
    picture: pictureOf(mockCircles("a.png", 320, 240), 320, 240),
    notices: [{ name: "onnxruntime-web", text: "MIT License\n\nCopyright (c) Microsoft Corporation" }],
  };
}

/** Nine circles in a grid, moved by the name of the file. */
export function mockCircles(name: string, width: number, height: number): Circle[] {
  const shift = [...name].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % 17;
  const circles: Circle[] = [];
  for (let index = 0; index < 9; index += 1) {
    const x = Math.round(((index % 3) + 0.5) * (width / 3) + shift - 8);
    const y = Math.round((Math.floor(index / 3) + 0.5) * (height / 3) - shift + 8);
    circles.push({ x, y, radius: Math.round((width / 22) * (1 + (index % 4) / 4)) });
  }
  return circles;
}

export class MockEngine implements Engine {
  readonly info: ModelInfo;
  /** Milliseconds until the next circle is found. */
  findMs = STEP_MS;
  #circles: Circle[] = [];
  #image: OpenedImage | null = null;
  #isCancelled = false;

  constructor(hasClasses: boolean) {
    this.info = mockInfo(hasClasses);
  }

  async start(): Promise<Backend> {
    await wait(STEP_MS);
    return { name: "wasm", threads: 1 };
  }

  async open(files: readonly File[], options: Readonly<Record<string, string>>): Promise<OpenedImage> {
    this.#image = null;
    const { name } = files[0];
    await wait(STEP_MS);
    if (name.includes("broken")) throw new UserError(`${name}: the file ends too early; it was not copied completely. Copy it again.`);
    const [width, height] = name.startsWith("large") ? [4000, 4000] : [640, 480];
    this.#circles = mockCircles(name, width, height);
    const planes = this.info.channels.map((_, index) => plane(this.#circles, width, height, index, this.info.classes.size > 0));
    const doesNotFit = name.startsWith("warm") && options.unit !== "celsius";
    const warnings = doesNotFit ? ["The values are from 18 to 61, but the model was trained on 270 to 330 K. Is the unit celsius?"] : [];
    this.#image = { name, width, height, planes, warnings, seconds: 0.4, pixelSize: { value: 0.05, unit: "m" } };
    return this.#image;
  }

  async predict(prompt: Prompt): Promise<FoundMask> {
    await wait(STEP_MS);
    const chosen = this.#circles.filter((circle) => isMeant(circle, prompt));
    if (!chosen.length) throw new UserError("Nothing is found here. Draw a box around the object.");
    return this.#maskOf(chosen, 0.93);
  }

  async everything(progress?: Progress): Promise<FoundMask[]> {
    this.#isCancelled = false;
    const found: FoundMask[] = [];
    for (const [index, circle] of this.#circles.entries()) {
      await wait(this.findMs);
      if (this.#isCancelled) throw new Cancelled();
      progress?.((index + 1) / this.#circles.length, ((this.#circles.length - index) * this.findMs) / 1000);
      found.push(this.#maskOf([circle], 0.98 - index / 20));
    }
    return found;
  }

  async classMap(): Promise<ClassMap> {
    await wait(STEP_MS);
    const { width, height } = this.#image!;
    const labels = new Uint32Array(width * height);
    for (const [index, circle] of this.#circles.entries()) {
      paint(circle, width, height, (at) => {
        labels[at] = 1 + (index % 2);
      });
    }
    return { width, height, labels, nodata: 255 };
  }

  async measure(masks: readonly FoundMask[]): Promise<Measurements> {
    await wait(STEP_MS);
    const columns = [{ name: "area", unit: "px" }, { name: "area_m2", unit: "m²" }];
    for (const { name, unit } of this.info.channels) {
      for (const statistic of ["mean", "min", "max", "contrast"]) columns.push({ name: `intensity_${statistic}-${name} [${unit}]`, unit });
    }
    const rows = masks.map((mask) => [mask.area, mask.area * 0.0025, ...this.info.channels.flatMap((_, index) => this.#statistics(mask, index))]);
    return { columns, rows };
  }

  cancel(): void {
    this.#isCancelled = true;
  }

  #statistics(mask: FoundMask, channel: number): number[] {
    const { planes, width } = this.#image!;
    const values: number[] = [];
    for (let at = 0; at < mask.inside.length; at += 1) {
      if (!mask.inside[at]) continue;
      values.push(planes[channel][(mask.y + Math.floor(at / mask.width)) * width + mask.x + (at % mask.width)]);
    }
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return [mean, Math.min(...values), Math.max(...values), mean - (this.info.classes.size ? 0.1 : 291)];
  }

  #maskOf(circles: readonly Circle[], score: number): FoundMask {
    const { width, height } = this.#image!;
    const x = Math.max(0, Math.min(...circles.map((circle) => circle.x - circle.radius)));
    const y = Math.max(0, Math.min(...circles.map((circle) => circle.y - circle.radius)));
    const right = Math.min(width, Math.max(...circles.map((circle) => circle.x + circle.radius + 1)));
    const bottom = Math.min(height, Math.max(...circles.map((circle) => circle.y + circle.radius + 1)));
    const inside = new Uint8Array((right - x) * (bottom - y));
    for (const circle of circles) {
      paint(circle, width, height, (at) => {
        inside[(Math.floor(at / width) - y) * (right - x) + (at % width) - x] = 1;
      });
    }
    const area = inside.reduce((sum, bit) => sum + bit, 0);
    const index = this.#circles.indexOf(circles[0]);
    const ofClass = this.info.classes.size ? { classId: 1 + (index % 2), classProbability: 0.8 } : {};
    return { x, y, width: right - x, height: bottom - y, inside, area, score, ...ofClass };
  }
}

/** A circle with a point on it, or with its centre in the box, and without a point that is not on the object. */
function isMeant(circle: Circle, { points, box }: Prompt): boolean {
  const has = ({ x, y }: { x: number; y: number }) => Math.hypot(x - circle.x, y - circle.y) <= circle.radius;
  if (points.some((point) => !point.onObject && has(point))) return false;
  const isInBox = box && circle.x > box[0] && circle.x < box[2] && circle.y > box[1] && circle.y < box[3];
  return isInBox || points.some((point) => point.onObject && has(point));
}

function paint({ x, y, radius }: Circle, width: number, height: number, set: (at: number) => void): void {
  for (let row = Math.max(0, y - radius); row <= Math.min(height - 1, y + radius); row += 1) {
    for (let column = Math.max(0, x - radius); column <= Math.min(width - 1, x + radius); column += 1) {
      if (Math.hypot(column - x, row - y) <= radius) set(row * width + column);
    }
  }
}

/** Values of 16 bits: kelvin in hundredths, or reflectance in ten thousandths; a corner was not measured. */
function plane(circles: readonly Circle[], width: number, height: number, channel: number, isReflectance: boolean): Float32Array {
  const values = new Float32Array(width * height);
  let seed = 1 + channel;
  for (let at = 0; at < values.length; at += 1) {
    seed = (seed * 48271) % 2147483647;
    const slope = (3 * (at % width)) / width;
    values[at] = 29000 + 100 * slope + (seed % 90);
  }
  for (const [index, circle] of circles.entries()) {
    paint(circle, width, height, (at) => {
      const away = Math.hypot((at % width) - circle.x, Math.floor(at / width) - circle.y) / circle.radius;
      values[at] += (700 + 130 * index) * (1 - 0.5 * away * away) * (channel % 2 ? 0.5 : 1);
    });
  }
  for (let row = 0; row < 12; row += 1) values.fill(NaN, row * width, row * width + 40);
  return values.map((value) => (isReflectance ? (value - 28000) / 10000 : value / 100));
}

function pictureOf(circles: readonly Circle[], width: number, height: number): string {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d")!;
  context.fillStyle = "#2a2d33";
  context.fillRect(0, 0, width, height);
  for (const { x, y, radius } of circles) {
    const light = context.createRadialGradient(x, y, 0, x, y, radius);
    light.addColorStop(0, "#fff3c4");
    light.addColorStop(1, "#c65a2e");
    context.fillStyle = light;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
  }
  return canvas.toDataURL("image/png");
}

function wait(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
