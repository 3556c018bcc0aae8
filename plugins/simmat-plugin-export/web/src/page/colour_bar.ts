/** The bar from the darkest to the brightest colour, with the values they stand for and that under the pointer. */

import { fitCanvas } from "shared/dom.js";
import { decimals } from "shared/numbers.js";
import { colourTable } from "./colours";
import { channelTitle, shownUnit } from "./numbers";
import type { Workspace } from "./workspace";

const BAR_HEIGHT_PX = 14;
const BAR_TOP_PX = 8;
const TICKS = 3;

export class ColourBar {
  #marked: number | null = null;

  constructor(readonly canvas: HTMLCanvasElement, readonly workspace: Workspace) {
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** Mark a value, in the channel's unit. */
  mark(value: number | null): void {
    if (value === this.#marked) return;
    this.#marked = value;
    this.draw();
  }

  draw(): void {
    const { display, engine } = this.workspace;
    if (!display || display.channels.length !== 1 || !this.canvas.clientWidth) return;
    const { context, width } = fitCanvas(this.canvas);
    const [low, high] = display.limits[0];
    this.#drawColours(context, width);

    const channel = engine.info.channels[display.channels[0]];
    const { unit, factor, offset } = shownUnit(channel);
    const styles = getComputedStyle(this.canvas);
    context.fillStyle = styles.color;
    context.font = `11px ${styles.fontFamily}`;
    context.textBaseline = "top";
    const labels: string[] = [];
    for (let tick = 0; tick < TICKS; tick += 1) {
      const share = tick / (TICKS - 1);
      const value = factor * (low + share * (high - low)) + offset;
      const text = decimals(value, factor * (high - low));
      labels.push(text);
      context.textAlign = tick === 0 ? "left" : tick === TICKS - 1 ? "right" : "center";
      context.fillText(tick === TICKS - 1 ? `${text} ${unit}`.trim() : text, share * width, BAR_TOP_PX + BAR_HEIGHT_PX + 5);
    }
    this.canvas.setAttribute("aria-label", `${channelTitle(channel)} from ${labels[0]} to ${labels[labels.length - 1]}`);
    if (this.#marked !== null && Number.isFinite(this.#marked)) {
      const share = Math.min(1, Math.max(0, (this.#marked - low) / (high - low)));
      drawMarker(context, share * width);
    }
  }

  #drawColours(context: CanvasRenderingContext2D, width: number): void {
    const table = colourTable(this.workspace.display!.map);
    for (let x = 0; x < width; x += 1) {
      const level = Math.round((255 * x) / (width - 1));
      context.fillStyle = `rgb(${table[3 * level]} ${table[3 * level + 1]} ${table[3 * level + 2]})`;
      context.fillRect(x, BAR_TOP_PX, 1.5, BAR_HEIGHT_PX);
    }
  }
}

/** A triangle that points down to the bar. */
function drawMarker(context: CanvasRenderingContext2D, x: number): void {
  context.beginPath();
  context.moveTo(x - 5, 0);
  context.lineTo(x + 5, 0);
  context.lineTo(x, BAR_TOP_PX);
  context.closePath();
  context.fill();
}
