/** What is drawn over the image besides masks: clicks, boxes, the brush and the cross. The context is in CSS pixels. */

/** @import { Place } from "./masks.js" */

const ON_OBJECT = "#1a9850";
const BESIDE = "#d73027";

/**
 * A click, with a plus or a minus, so that colour is not the only difference.
 * @param {CanvasRenderingContext2D} context
 * @param {Place} at
 * @param {boolean} onObject
 * @param {number} radius
 */
export function drawClick(context, at, onObject, radius) {
  drawDisc(context, at, radius, onObject ? ON_OBJECT : BESIDE, "#fff");
  const arm = radius * 0.55;
  context.beginPath();
  context.moveTo(at.x - arm, at.y);
  context.lineTo(at.x + arm, at.y);
  if (onObject) {
    context.moveTo(at.x, at.y - arm);
    context.lineTo(at.x, at.y + arm);
  }
  context.lineWidth = 2;
  context.stroke();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Place} at
 * @param {number} radius
 * @param {string} fill
 * @param {string} edge
 */
export function drawDisc(context, { x, y }, radius, fill, edge) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = fill;
  context.fill();
  context.lineWidth = 1.5;
  context.strokeStyle = edge;
  context.stroke();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Place} from a corner on the screen
 * @param {Place} to the one across
 */
export function drawBox(context, from, to) {
  context.beginPath();
  context.rect(from.x, from.y, to.x - from.x, to.y - from.y);
  strokeSeen(context);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Place} at
 * @param {number} radius in pixels of the screen
 * @param {string} colour
 */
export function drawBrush(context, at, radius, colour) {
  context.beginPath();
  context.arc(at.x, at.y, radius, 0, 2 * Math.PI);
  strokeSeen(context, colour);
}

/**
 * A cross where keys click; what is under it stays seen.
 * @param {CanvasRenderingContext2D} context
 * @param {Place} at
 */
export function drawCross(context, { x, y }) {
  context.beginPath();
  for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    context.moveTo(x + 4 * dx, y + 4 * dy);
    context.lineTo(x + 14 * dx, y + 14 * dy);
  }
  strokeSeen(context);
}

/**
 * Stroke the path with a dark edge, so that it is seen on every image.
 * @param {CanvasRenderingContext2D} context
 */
export function strokeSeen(context, colour = "#fff") {
  context.lineWidth = 3.5;
  context.strokeStyle = "rgb(0 0 0 / 60%)";
  context.stroke();
  context.lineWidth = 1.5;
  context.strokeStyle = colour;
  context.stroke();
}
