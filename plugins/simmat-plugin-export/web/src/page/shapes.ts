/** Masks and class maps as shapes that a canvas draws; each is made once for each mask. */

import type { FoundMask, ModelInfo } from "../engine";
import { rgb } from "./colours";
import type { StoredClassMap } from "./images";
import type { View } from "./view";

const outlines = new WeakMap<FoundMask, Path2D>();
const fills = new WeakMap<FoundMask, { colour: string; canvas: HTMLCanvasElement }>();
const classPictures = new WeakMap<StoredClassMap, HTMLCanvasElement>();

/** A larger class map is drawn from every nth pixel. */
const MOST_PIXELS = 8_000_000;

/** The edges of the pixels of a mask, in image pixels. */
export function outlineOf(mask: FoundMask): Path2D {
  const known = outlines.get(mask);
  if (known) return known;
  const path = new Path2D();
  addHorizontalEdges(path, mask);
  addVerticalEdges(path, mask);
  outlines.set(mask, path);
  return path;
}

function isInside({ width, height, inside }: FoundMask, column: number, row: number): boolean {
  return column >= 0 && row >= 0 && column < width && row < height && inside[row * width + column] === 1;
}

function addHorizontalEdges(path: Path2D, mask: FoundMask): void {
  for (let row = 0; row <= mask.height; row += 1) {
    let start = -1;
    for (let column = 0; column <= mask.width; column += 1) {
      const isEdge = isInside(mask, column, row - 1) !== isInside(mask, column, row);
      if (isEdge && start < 0) start = column;
      if (isEdge || start < 0) continue;
      path.moveTo(mask.x + start, mask.y + row);
      path.lineTo(mask.x + column, mask.y + row);
      start = -1;
    }
  }
}

function addVerticalEdges(path: Path2D, mask: FoundMask): void {
  for (let column = 0; column <= mask.width; column += 1) {
    let start = -1;
    for (let row = 0; row <= mask.height; row += 1) {
      const isEdge = isInside(mask, column - 1, row) !== isInside(mask, column, row);
      if (isEdge && start < 0) start = row;
      if (isEdge || start < 0) continue;
      path.moveTo(mask.x + column, mask.y + start);
      path.lineTo(mask.x + column, mask.y + row);
      start = -1;
    }
  }
}

/** A canvas of the size of the mask's box, coloured inside. */
export function fillOf(mask: FoundMask, colour: string): HTMLCanvasElement {
  const known = fills.get(mask);
  if (known?.colour === colour) return known.canvas;
  const value = packed(colour);
  const canvas = painted(mask.width, mask.height, (index) => (mask.inside[index] ? value : 0));
  fills.set(mask, { colour, canvas });
  return canvas;
}

export interface Look {
  colour: string;
  opacity: number;
  /** Its colour; null for none. */
  outline: string | null;
  lineWidth: number;
  isDashed: boolean;
}

/** Draw a mask; the context is in CSS pixels. */
export function drawMask(context: CanvasRenderingContext2D, view: View, mask: FoundMask, look: Look): void {
  const topLeft = view.toScreen(mask);
  const width = mask.width * view.zoom;
  const height = mask.height * view.zoom;
  const isOutside = topLeft.x > view.screen.width || topLeft.y > view.screen.height || topLeft.x + width < 0 || topLeft.y + height < 0;
  if (isOutside || !mask.area) return;
  context.save();
  context.imageSmoothingEnabled = false;
  context.globalAlpha = look.opacity;
  context.drawImage(fillOf(mask, look.colour), topLeft.x, topLeft.y, width, height);
  context.globalAlpha = 1;
  if (look.outline) strokeOutline(context, view, outlineOf(mask), look.outline, look);
  context.restore();
}

function strokeOutline(context: CanvasRenderingContext2D, view: View, outline: Path2D, colour: string, look: Look): void {
  context.translate(view.offset.x, view.offset.y);
  context.scale(view.zoom, view.zoom);
  context.lineCap = "square";
  context.strokeStyle = "rgb(0 0 0 / 70%)"; // seen on bright images
  context.lineWidth = (look.lineWidth + 1.5) / view.zoom;
  context.stroke(outline);
  context.lineCap = "butt";
  if (look.isDashed) context.setLineDash([4 / view.zoom, 3 / view.zoom]);
  context.strokeStyle = colour;
  context.lineWidth = look.lineWidth / view.zoom;
  context.stroke(outline);
}

export function drawClassMap(context: CanvasRenderingContext2D, view: View, map: StoredClassMap, info: ModelInfo, opacity: number): void {
  let picture = classPictures.get(map);
  if (!picture) {
    picture = classPicture(map, info);
    classPictures.set(map, picture);
  }
  const { x, y } = view.toScreen({ x: 0, y: 0 });
  context.save();
  context.imageSmoothingEnabled = false;
  context.globalAlpha = opacity;
  context.drawImage(picture, x, y, map.width * view.zoom, map.height * view.zoom);
  context.restore();
}

/** Label values without a class, such as the background, stay transparent. */
function classPicture(map: StoredClassMap, info: ModelInfo): HTMLCanvasElement {
  const step = Math.ceil(Math.sqrt((map.width * map.height) / MOST_PIXELS));
  const colours = new Map<number, number>();
  for (const [value, { colour }] of info.classes) colours.set(value, packed(colour));
  const width = Math.ceil(map.width / step);
  return painted(width, Math.ceil(map.height / step), (index) => {
    const row = Math.floor(index / width) * step;
    const column = (index % width) * step;
    return colours.get(map.labels[row * map.width + column]) ?? 0;
  });
}

/** A colour as a pixel of ImageData, opaque. */
function packed(colour: string): number {
  const [red, green, blue] = rgb(colour);
  return new Uint32Array(Uint8Array.of(red, green, blue, 255).buffer)[0];
}

function painted(width: number, height: number, colourAt: (index: number) => number): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const pixels = new ImageData(width, height);
  const colours = new Uint32Array(pixels.data.buffer);
  for (let index = 0; index < colours.length; index += 1) colours[index] = colourAt(index);
  canvas.getContext("2d")!.putImageData(pixels, 0, 0);
  return canvas;
}
