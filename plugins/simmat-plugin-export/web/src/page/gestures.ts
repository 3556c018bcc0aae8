/** What pointers do on the image: clicks, boxes, strokes, panning, and zooming with the wheel or two fingers. */

import type { Place } from "shared/masks.js";
import type { Stage } from "./stage";
import type { Workspace } from "./workspace";

const CLICK_PX = 5; // a pointer that moves less has clicked
const LONG_PRESS_MS = 500;

type Gesture = "press" | "box" | "stroke" | "pan" | "pinch" | "done";

export class Gestures {
  #gesture: Gesture = "done";
  #pointers = new Map<number, Place>();
  #start: Place = { x: 0, y: 0 };
  #last: Place = { x: 0, y: 0 };
  #isOpposite = false;
  #erases = false;
  #longPress = 0;
  #isSpaceDown = false;

  constructor(readonly stage: Stage, readonly workspace: Workspace, readonly onHover: (place: Place | null) => void) {
    const { canvas } = stage;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", (event) => this.#cancel(event));
    canvas.addEventListener("pointerleave", () => this.#leave());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("dblclick", (event) => event.preventDefault());
    document.addEventListener("keydown", (event) => this.#space(event, true));
    document.addEventListener("keyup", (event) => this.#space(event, false));
  }

  #place({ x, y }: Place): Place {
    return this.stage.view.toImage({ x, y });
  }

  #down(event: PointerEvent): void {
    const { canvas } = this.stage;
    if (!this.workspace.opened) return;
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    const at = { x: event.offsetX, y: event.offsetY };
    this.#pointers.set(event.pointerId, at);
    this.stage.showsCross = false;
    if (this.#pointers.size === 2) {
      this.#beginPinch();
      return;
    }
    if (this.#pointers.size > 2) return;
    this.#start = at;
    this.#last = at;
    this.#isOpposite = event.button === 2 || event.shiftKey;
    const { tool } = this.workspace;
    if (event.button === 1 || tool === "move" || this.#isSpaceDown) this.#gesture = "pan";
    else if (tool === "brush" || tool === "eraser") this.#beginStroke(event);
    else this.#beginPress(event);
  }

  /** A press becomes a click, or a box if it moves. */
  #beginPress(event: PointerEvent): void {
    this.#gesture = "press";
    if (event.pointerType === "mouse") return;
    this.#longPress = window.setTimeout(() => this.#pressedLong(), LONG_PRESS_MS);
  }

  #pressedLong(): void {
    if (this.#gesture !== "press") return;
    this.#gesture = "done";
    navigator.vibrate?.(10);
    this.#click(this.#start, true);
  }

  #click(at: Place, isOpposite: boolean): void {
    const place = this.#place(at);
    const { width, height } = this.workspace.opened!;
    const isOutside = place.x < 0 || place.y < 0 || place.x >= width || place.y >= height;
    if (isOutside) return;
    const adds = (this.workspace.tool === "add") !== isOpposite;
    this.workspace.click(place, adds);
  }

  #beginStroke(event: PointerEvent): void {
    this.#gesture = "stroke";
    this.#erases = (this.workspace.tool === "eraser") !== (event.button === 2);
    this.workspace.beginStroke();
    if (event.pointerType !== "touch") this.#stroke(this.#start); // a second finger may come to zoom
  }

  #stroke(to: Place): void {
    const { brushRadius: radius } = this.workspace;
    this.workspace.stroke({ from: this.#place(this.#last), to: this.#place(to), radius, erases: this.#erases });
  }

  #move(event: PointerEvent): void {
    const at = { x: event.offsetX, y: event.offsetY };
    if (this.#pointers.has(event.pointerId)) this.#drag(event.pointerId, at);
    if (event.pointerType === "mouse" || this.#gesture === "stroke") this.stage.pointer = this.#place(at);
    this.onHover(this.#place(at));
    this.stage.redraw();
  }

  #drag(pointer: number, at: Place): void {
    if (this.#gesture === "pinch") this.#pinch(pointer, at);
    this.#pointers.set(pointer, at);
    const isMoved = Math.hypot(at.x - this.#start.x, at.y - this.#start.y) >= CLICK_PX;
    if (this.#gesture === "press" && isMoved) this.#gesture = "box";
    if (this.#gesture === "box") this.stage.drawnBox = [this.#place(this.#start), this.#place(at)];
    if (this.#gesture === "stroke") this.#stroke(at);
    if (this.#gesture === "pan") this.stage.move((view) => view.pan(at.x - this.#last.x, at.y - this.#last.y));
    this.#last = at;
  }

  #up(event: PointerEvent): void {
    if (!this.#pointers.delete(event.pointerId)) return;
    clearTimeout(this.#longPress);
    const at = { x: event.offsetX, y: event.offsetY };
    const gesture = this.#gesture;
    const wasStill = Math.hypot(at.x - this.#start.x, at.y - this.#start.y) < CLICK_PX;
    if (this.#pointers.size === 0) this.#gesture = "done";
    if (gesture === "press") this.#click(at, this.#isOpposite);
    if (gesture === "stroke" && wasStill) this.#stroke(at);
    if (gesture === "box") this.workspace.box(this.#place(this.#start), this.#place(at));
    if (gesture === "pan" && wasStill && this.workspace.tool === "move") this.workspace.selectAt(this.#place(at));
    this.stage.drawnBox = null;
    this.stage.redraw();
  }

  #cancel(event: PointerEvent): void {
    this.#pointers.delete(event.pointerId);
    clearTimeout(this.#longPress);
    this.#gesture = "done";
    this.stage.drawnBox = null;
    this.stage.redraw();
  }

  #leave(): void {
    this.stage.pointer = null;
    this.onHover(null);
    this.stage.redraw();
  }

  /** A second finger ends what the first began. */
  #beginPinch(): void {
    clearTimeout(this.#longPress);
    this.#gesture = "pinch";
    this.stage.drawnBox = null;
  }

  #pinch(pointer: number, at: Place): void {
    const before = this.#pointers.get(pointer)!;
    const other = [...this.#pointers].find(([id]) => id !== pointer)?.[1];
    if (!other) return;
    const factor = distance(at, other) / Math.max(1, distance(before, other));
    const middle = { x: (at.x + other.x) / 2, y: (at.y + other.y) / 2 };
    this.stage.move((view) => {
      view.pan((at.x - before.x) / 2, (at.y - before.y) / 2);
      view.zoomBy(factor, middle);
    });
  }

  #wheel(event: WheelEvent): void {
    if (!this.workspace.opened) return;
    event.preventDefault();
    const pixels = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 * event.deltaY : event.deltaY;
    const speed = event.ctrlKey ? 0.01 : 0.0015; // with ctrlKey it is a pinch of a touch pad
    const factor = Math.exp(-speed * Math.max(-400, Math.min(400, pixels)));
    this.stage.move((view) => view.zoomBy(factor, { x: event.offsetX, y: event.offsetY }));
  }

  /** Space held down: dragging pans. */
  #space(event: KeyboardEvent, isDown: boolean): void {
    if (event.key !== " " || event.target !== this.stage.canvas) return;
    if (isDown) event.preventDefault();
    this.#isSpaceDown = isDown;
    this.stage.canvas.classList.toggle("pans", isDown);
  }
}

function distance(one: Place, other: Place): number {
  return Math.hypot(one.x - other.x, one.y - other.y);
}
