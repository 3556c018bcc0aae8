/** Masks and class maps as shapes that a canvas draws; each is made once for each mask. */

import { rgbOf } from "shared/colours.js";
import type { FoundMask, ModelInfo } from "../engine";
import { colourOfLabel } from "./colours";
import type { StoredClassMap } from "./images";
import type { Place, Size } from "./masks";
import type { View } from "./view";

const outlines = new WeakMap<FoundMask, Path2D>();
const fills = new WeakMap<FoundMask, { colour: string; fill: Fill }>();
const classPictures = new WeakMap<StoredClassMap, Fill>();

/** A larger mask or class map is filled from every nth pixel. */
const MOST_PIXELS = 4_000_000;

/** Coloured pixels, each of which stands for step * step pixels of the image. */
interface Fill {
  canvas: HTMLCanvasElement;
  step: number;
}

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

function addHorizontalEdges(path: Path2D, { x, y, width, height, inside }: FoundMask): void {
  for (let row = 0; row <= height; row += 1) {
    const here = row * width;
    const above = here - width;
    let start = -1;
    for (let column = 0; column <= width; column += 1) {
      const isInside = row < height && column < width && inside[here + column] === 1;
      const wasInside = row > 0 && column < width && inside[above + column] === 1;
      const isEdge = isInside !== wasInside;
      if (isEdge && start < 0) start = column;
      if (isEdge || start < 0) continue;
      path.moveTo(x + start, y + row);
      path.lineTo(x + column, y + row);
      start = -1;
    }
  }
}

function addVerticalEdges(path: Path2D, { x, y, width, height, inside }: FoundMask): void {
  for (let column = 0; column <= width; column += 1) {
    let start = -1;
    for (let row = 0; row <= height; row += 1) {
      const at = row * width + column;
      const isInside = row < height && column < width && inside[at] === 1;
      const wasInside = row < height && column > 0 && inside[at - 1] === 1;
      const isEdge = isInside !== wasInside;
      if (isEdge && start < 0) start = row;
      if (isEdge || start < 0) continue;
      path.moveTo(x + column, y + start);
      path.lineTo(x + column, y + row);
      start = -1;
    }
  }
}

/** The box of a mask, coloured inside. */
function fillOf(mask: FoundMask, colour: string): Fill {
  const known = fills.get(mask);
  if (known?.colour === colour) return known.fill;
  const value = packed(colour);
  const fill = filled(mask, (index) => (mask.inside[index] ? value : 0));
  fills.set(mask, { colour, fill });
  return fill;
}

export interface Look {
  colour: string;
  opacity: number;
  /** Its colour; null for none. */
  outline: string | null;
  lineWidth: number;
  isDashed: boolean;
  /** Whether a dark line below makes the outline seen on bright images; of thousands of objects, it takes too long. */
  hasShade: boolean;
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
  drawFill(context, view, fillOf(mask, look.colour), mask);
  context.globalAlpha = 1;
  if (look.outline) strokeOutline(context, view, outlineOf(mask), look.outline, look);
  context.restore();
}

function strokeOutline(context: CanvasRenderingContext2D, view: View, outline: Path2D, colour: string, look: Look): void {
  context.translate(view.offset.x, view.offset.y);
  context.scale(view.zoom, view.zoom);
  if (look.hasShade) {
    context.lineCap = "square";
    context.strokeStyle = "rgb(0 0 0 / 70%)";
    context.lineWidth = (look.lineWidth + 1.5) / view.zoom;
    context.stroke(outline);
    context.lineCap = "butt";
  }
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
  context.save();
  context.imageSmoothingEnabled = false;
  context.globalAlpha = opacity;
  drawFill(context, view, picture, { x: 0, y: 0 });
  context.restore();
}

function drawFill(context: CanvasRenderingContext2D, view: View, { canvas, step }: Fill, topLeft: Place): void {
  const { x, y } = view.toScreen(topLeft);
  context.drawImage(canvas, x, y, canvas.width * step * view.zoom, canvas.height * step * view.zoom);
}

/** The background, and what was not measured, stay transparent. */
function classPicture(map: StoredClassMap, info: ModelInfo): Fill {
  const colours = new Uint32Array(0x10000);
  for (const label of new Set(map.labels)) {
    const colour = colourOfLabel(info, label);
    if (colour && label !== map.nodata) colours[label] = packed(colour);
  }
  return filled(map, (index) => colours[map.labels[index]]);
}

/** A colour as a pixel of ImageData, opaque. */
function packed(colour: string): number {
  const [red, green, blue] = rgbOf(colour);
  return new Uint32Array(Uint8Array.of(red, green, blue, 255).buffer)[0];
}

/** Give each pixel the colour of its index, 0 for none. */
function filled({ width, height }: Size, colourAt: (index: number) => number): Fill {
  const step = Math.max(1, Math.ceil(Math.sqrt((width * height) / MOST_PIXELS)));
  const canvas = document.createElement("canvas");
  canvas.width = Math.ceil(width / step);
  canvas.height = Math.ceil(height / step);
  const pixels = new ImageData(canvas.width, canvas.height);
  const colours = new Uint32Array(pixels.data.buffer);
  let to = 0;
  for (let y = 0; y < height; y += step) {
    for (let x = 0; x < width; x += step) {
      colours[to] = colourAt(y * width + x);
      to += 1;
    }
  }
  canvas.getContext("2d")!.putImageData(pixels, 0, 0);
  return { canvas, step };
}
