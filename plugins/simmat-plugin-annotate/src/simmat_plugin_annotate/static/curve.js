/** The curve of a training: losses and validation scores over its steps. */

import { byId, cleared } from "./show.js";

const EDGE = 4;
const [LOSS, SCORE, QUIET] = ["#e69f00", "#6cb8ee", "#b4b4b4"];

/**
 * Draw the curve, or hide it where there is nothing to draw yet.
 * @param losses,scores [step, value]; scores are 0..1
 */
export function drawCurve({ losses, scores, steps }) {
  const canvas = byId("curve");
  canvas.hidden = losses.length < 2 && scores.length < 2;
  if (canvas.hidden) return;
  const { context, width, height } = cleared(canvas);
  context.font = "11px sans-serif";
  const values = losses.map(([, value]) => value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [top, bottom] = [18, height - 16];
  const x = (step) => EDGE + (step / steps) * (width - 2 * EDGE);
  const y = (part) => bottom - part * (bottom - top);
  context.strokeStyle = "#4a4a4a";
  context.strokeRect(EDGE, top, width - 2 * EDGE, bottom - top);
  const line = (points, colour) => {
    context.beginPath();
    for (const [step, part] of points) context.lineTo(x(step), y(part));
    context.strokeStyle = colour;
    context.lineWidth = 1.5;
    context.stroke();
  };
  line(losses.map(([step, value]) => [step, (value - low) / (high - low || 1)]), LOSS);
  line(scores, SCORE);
  context.fillStyle = SCORE;
  for (const [step, part] of scores) context.fillRect(x(step) - 2.5, y(part) - 2.5, 5, 5);
  const last = (points) => points.at(-1)?.[1].toPrecision(3) ?? "–";
  context.fillText(`■ IoU ${last(scores)}`, EDGE, 12);
  context.fillStyle = LOSS;
  context.fillText(`— loss ${last(losses)}`, 100, 12);
  context.fillStyle = QUIET;
  context.fillText("0", EDGE, height - 4);
  const end = `${steps} steps`;
  context.fillText(end, width - EDGE - context.measureText(end).width, height - 4);
  canvas.setAttribute("aria-label", `Validation IoU ${last(scores)}, loss ${last(losses)} at step ` +
    `${losses.at(-1)?.[0] ?? 0} of ${steps}`);
}
