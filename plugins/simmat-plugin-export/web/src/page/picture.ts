/** The opened image as pixels of the screen: drawn once whole, and sharp again where a large image is looked at closely. */

import type { View } from "shared/view.js";
import type { OpenedImage } from "../engine";
import { colourTable } from "./colours";
import type { Display, Limits } from "./display";

/** A larger image is drawn whole from every nth pixel. */
const MOST_PIXELS = 8_000_000;

interface Part {
  x: number;
  y: number;
  width: number;
  height: number;
  /** Every nth pixel is drawn. */
  step: number;
}

export class Picture {
  #whole: HTMLCanvasElement | null = null;
  #wholePart: Part;
  #detail: { canvas: HTMLCanvasElement; part: Part } | null = null;
  #display: Display | null = null;

  constructor(readonly image: OpenedImage) {
    const { width, height } = image;
    const step = Math.ceil(Math.sqrt((width * height) / MOST_PIXELS));
    this.#wholePart = { x: 0, y: 0, width, height, step };
  }

  /** Draw what is in view; the context is in CSS pixels. */
  draw(context: CanvasRenderingContext2D, view: View, display: Display): void {
    if (display !== this.#display) {
      this.#display = display;
      this.#whole = rendered(this.image, display, this.#wholePart);
      this.#detail = null;
    }
    drawPart(context, view, this.#whole!, this.#wholePart);
    if (this.#wholePart.step > 1 && view.zoom * this.#wholePart.step > 1) this.#drawDetail(context, view, display);
  }

  #drawDetail(context: CanvasRenderingContext2D, view: View, display: Display): void {
    const part = this.#partInView(view);
    if (part.width <= 0 || part.height <= 0) return;
    const known = this.#detail?.part;
    const isKnown = known && known.x === part.x && known.y === part.y && known.width === part.width && known.height === part.height;
    if (!isKnown) this.#detail = { canvas: rendered(this.image, display, part), part };
    drawPart(context, view, this.#detail!.canvas, this.#detail!.part);
  }

  #partInView(view: View): Part {
    const { width, height } = this.image;
    const topLeft = view.toImage({ x: 0, y: 0 });
    const bottomRight = view.toImage({ x: view.screen.width, y: view.screen.height });
    const x = Math.max(0, Math.floor(topLeft.x));
    const y = Math.max(0, Math.floor(topLeft.y));
    const right = Math.min(width, Math.ceil(bottomRight.x));
    const bottom = Math.min(height, Math.ceil(bottomRight.y));
    const step = Math.max(1, Math.floor(1 / view.zoom));
    return { x, y, width: right - x, height: bottom - y, step };
  }
}

function drawPart(context: CanvasRenderingContext2D, view: View, canvas: HTMLCanvasElement, part: Part): void {
  const { x, y } = view.toScreen(part);
  context.imageSmoothingEnabled = view.zoom * part.step < 1;
  context.drawImage(canvas, x, y, canvas.width * part.step * view.zoom, canvas.height * part.step * view.zoom);
}

function rendered(image: OpenedImage, display: Display, part: Part): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = Math.ceil(part.width / part.step);
  canvas.height = Math.ceil(part.height / part.step);
  const pixels = new ImageData(canvas.width, canvas.height);
  if (display.channels.length === 1) fillWithOne(pixels, image, display, part);
  else fillWithThree(pixels, image, display, part);
  canvas.getContext("2d")!.putImageData(pixels, 0, 0);
  return canvas;
}

/** Pixels without a measurement stay transparent. */
function fillWithOne({ data }: ImageData, image: OpenedImage, display: Display, part: Part): void {
  const plane = image.planes[display.channels[0]];
  const table = colourTable(display.map);
  const toLevel = levels(display.limits[0]);
  forEachPixel(image, part, (from, to) => {
    const value = plane[from];
    if (Number.isNaN(value)) return;
    const level = toLevel(value);
    data[to] = table[3 * level];
    data[to + 1] = table[3 * level + 1];
    data[to + 2] = table[3 * level + 2];
    data[to + 3] = 255;
  });
}

function fillWithThree({ data }: ImageData, image: OpenedImage, display: Display, part: Part): void {
  display.channels.forEach((channel, colour) => {
    const plane = image.planes[channel];
    const toLevel = levels(display.limits[colour]);
    forEachPixel(image, part, (from, to) => {
      const value = plane[from];
      if (Number.isNaN(value)) return;
      data[to + colour] = toLevel(value);
      data[to + 3] = 255;
    });
  });
}

function levels([low, high]: Limits): (value: number) => number {
  const scale = 255 / (high - low);
  return (value) => Math.min(255, Math.max(0, Math.round((value - low) * scale)));
}

/** Call with the index of each pixel in a plane, and of its first byte in the picture. */
function forEachPixel(image: OpenedImage, part: Part, visit: (from: number, to: number) => void): void {
  let to = 0;
  for (let y = part.y; y < part.y + part.height; y += part.step) {
    for (let x = part.x; x < part.x + part.width; x += part.step) {
      visit(y * image.width + x, to);
      to += 4;
    }
  }
}
