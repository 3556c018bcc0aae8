/** Masks as a canvas draws them: coloured pixels, and an outline along their edges. Each is made once for each mask. */

import { cssOf } from "./colours.js";

/** @import { Rgb } from "./colours.js" */
/** @import { Mask, Place, Size } from "./masks.js" */
/** @import { View } from "./view.js" */

/** A larger mask is drawn from every nth pixel. */
const MOST_PIXELS = 4_000_000;

/** @type {WeakMap<Mask, Path2D>} */
const outlines = new WeakMap();
/** @type {WeakMap<Mask, { colour: string, fill: Fill }>} */
const fills = new WeakMap();

/**
 * Coloured pixels, each of which stands for step * step pixels of the image.
 * @typedef {{ canvas: HTMLCanvasElement, step: number }} Fill
 */

/**
 * How a mask is drawn. `outline` is its colour, null for none; `dash` are lengths in pixels of the screen. `hasShade` is
 * whether a dark line below makes the outline seen on bright images; of thousands of objects, it takes too long.
 * @typedef {{ colour: Rgb, opacity: number, outline: Rgb | null, lineWidth: number, dash: readonly number[], hasShade: boolean }} Look
 */

/**
 * Draw a mask; the context is in CSS pixels.
 * @param {CanvasRenderingContext2D} context
 * @param {View} view
 * @param {Mask} mask
 * @param {Look} look
 */
export function drawMask(context, view, mask, look) {
  if (!view.sees(mask) || !mask.area) return;
  context.save();
  context.globalAlpha = look.opacity;
  if (look.opacity) drawFill(context, view, fillOf(mask, look.colour), mask);
  context.globalAlpha = 1;
  if (look.outline) strokeOutline(context, view, outlineOf(mask), look.outline, look);
  context.restore();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {View} view
 * @param {Path2D} outline
 * @param {Rgb} colour
 * @param {Look} look
 */
function strokeOutline(context, { offset, zoom }, outline, colour, { lineWidth, dash, hasShade }) {
  context.translate(offset.x, offset.y);
  context.scale(zoom, zoom);
  if (hasShade) {
    context.lineCap = "square";
    context.strokeStyle = "rgb(0 0 0 / 70%)";
    context.lineWidth = (lineWidth + 1.5) / zoom;
    context.stroke(outline);
    context.lineCap = "butt";
  }
  context.setLineDash(dash.map((length) => length / zoom));
  context.strokeStyle = cssOf(colour);
  context.lineWidth = lineWidth / zoom;
  context.stroke(outline);
}

/**
 * Draw coloured pixels from a place of the image on.
 * @param {CanvasRenderingContext2D} context
 * @param {View} view
 * @param {Fill} fill
 * @param {Place} topLeft
 */
export function drawFill(context, view, { canvas, step }, topLeft) {
  const { x, y } = view.toScreen(topLeft);
  context.imageSmoothingEnabled = false;
  context.drawImage(canvas, x, y, canvas.width * step * view.zoom, canvas.height * step * view.zoom);
}

/**
 * The box of a mask, coloured inside.
 * @param {Mask} mask
 * @param {Rgb} colour
 */
function fillOf(mask, colour) {
  const known = fills.get(mask);
  const css = cssOf(colour);
  if (known?.colour === css) return known.fill;
  const value = packed(colour);
  const fill = filled(mask, (index) => (mask.inside[index] ? value : 0));
  fills.set(mask, { colour: css, fill });
  return fill;
}

/**
 * A colour as a pixel of ImageData, opaque.
 * @param {Rgb} colour
 */
export function packed([red, green, blue]) {
  return new Uint32Array(Uint8Array.of(red, green, blue, 255).buffer)[0];
}

/**
 * Give each pixel the colour of its index, 0 for none.
 * @param {Size} size
 * @param {(index: number) => number} colourAt
 * @returns {Fill}
 */
export function filled({ width, height }, colourAt) {
  const step = stepOf(width, height);
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
  /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")).putImageData(pixels, 0, 0);
  return { canvas, step };
}

/**
 * @param {number} width
 * @param {number} height
 */
function stepOf(width, height) {
  return Math.max(1, Math.ceil(Math.sqrt((width * height) / MOST_PIXELS)));
}

/**
 * The edges of the pixels of a mask, in image pixels.
 * @param {Mask} mask
 */
function outlineOf(mask) {
  const known = outlines.get(mask);
  if (known) return known;
  const path = edgesOf(mask);
  outlines.set(mask, path);
  return path;
}

/** @param {Mask} mask */
function edgesOf({ x: left, y: top, width, height, inside }) {
  const path = new Path2D();
  const step = stepOf(width, height);
  const columns = Math.ceil(width / step);
  const rows = Math.ceil(height / step);
  const isInside = (/** @type {number} */ column, /** @type {number} */ row) =>
    column >= 0 && row >= 0 && column < columns && row < rows && inside[row * step * width + column * step] === 1;

  const isAbove = (/** @type {number} */ row, /** @type {number} */ column) => isInside(column, row - 1) !== isInside(column, row);
  forEachEdge(rows, columns, isAbove, (row, from, to) => {
    path.moveTo(left + from * step, top + row * step);
    path.lineTo(left + to * step, top + row * step);
  });
  const isBeside = (/** @type {number} */ column, /** @type {number} */ row) => isInside(column - 1, row) !== isInside(column, row);
  forEachEdge(columns, rows, isBeside, (column, from, to) => {
    path.moveTo(left + column * step, top + from * step);
    path.lineTo(left + column * step, top + to * step);
  });
  return path;
}

/**
 * Go along each of the lines between pixels, and visit its edges, joined where they go on.
 * @param {number} count of rows or columns
 * @param {number} length of each, in pixels
 * @param {(line: number, at: number) => boolean} isEdge
 * @param {(line: number, from: number, to: number) => void} visit
 */
function forEachEdge(count, length, isEdge, visit) {
  for (let line = 0; line <= count; line += 1) {
    let start = -1;
    for (let at = 0; at <= length; at += 1) {
      const edge = at < length && isEdge(line, at);
      if (edge && start < 0) start = at;
      if (edge || start < 0) continue;
      visit(line, start, at);
      start = -1;
    }
  }
}
