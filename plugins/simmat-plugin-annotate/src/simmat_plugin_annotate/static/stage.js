/** The canvas: draws image, masks and what is being drawn, and turns the pointer into clicks, boxes and strokes. */

import { strong } from "./colours.js";
import { distance } from "./shapes.js";
import { fitCanvas } from "./shared/dom.js";
import { drawMask } from "./shared/drawn_masks.js";
import { Layer } from "./shared/layer.js";
import { drawBox, drawBrush, drawClick, drawCross, drawDisc, strokeSeen } from "./shared/marks.js";
import { View } from "./shared/view.js";

const CLICK_PX = 4; // a pointer that moves less has clicked
const EDGE_GAP_PX = 14; // around the pointer, the edge of a wipe hides nothing
const CLICK_RADIUS_PX = 7; // of the disc that is drawn for a click
const AROUND_PX = 8; // stay free around a whole image
const CLOSE_PX = 8; // a click so near to the first corner closes a polygon

export class Stage {
  /**
   * @param canvas the element
   * @param scene () => {raster, display, wipe: {raster, display, name} or null, objects: {version, shapes()}, shapes: [{mask, colour, outline, opacity, lineWidth, dash}], points, box, brush, corners, closed} or null
   * @param act what gestures do: click, box, beginStroke, stroke, endStroke, select, level, hover, seen, moveCorner
   */
  constructor(canvas, scene, act) {
    Object.assign(this, { canvas, scene, act });
    this.view = new View(AROUND_PX);
    this.gesture = null;
    this.pointer = null; // its place on the screen
    this.wipeX = null; // where the pointer was last, across
    this.aims = false; // a cross in the middle shows where keys click
    this.frame = 0;
    this.objects = new Layer();
    new ResizeObserver(() => this.#resize()).observe(canvas);
    this.#listen();
  }

  redraw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.#draw();
    });
  }

  /** Move the image by keys under a cross in the middle of the view. */
  aim(dx, dy) {
    this.aims = true;
    this.view.pan(dx, dy);
    this.act.hover(this.view.middle);
  }

  setImage(size) {
    this.view.setImage(size);
    this.redraw();
  }

  #resize() {
    const { width, height } = fitCanvas(this.canvas);
    this.view.setScreen({ width, height });
    this.#draw(); // at once: a canvas of another size is empty
  }

  #draw() {
    const context = this.canvas.getContext("2d");
    const ratio = window.devicePixelRatio || 1;
    context.resetTransform();
    context.fillStyle = "#161616";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    const scene = this.scene();
    if (!scene) return;
    let missing = scene.raster.draw(context, this.view, scene.display, ratio);
    if (scene.wipe) missing += this.#drawWipe(context, scene.wipe, ratio);

    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.#drawObjects(context, scene.objects);
    this.#drawShapes(context, scene.shapes);
    if (scene.wipe) this.#drawEdge(context, scene.wipe);
    this.#drawPrompts(context, scene);
    this.act.seen(missing);
  }

  #drawObjects(context, { version, shapes }) {
    const { zoom, offset } = this.view;
    this.objects.draw(context, [...version, zoom, offset.x, offset.y], (layer) => this.#drawShapes(layer, shapes()));
  }

  #drawShapes(context, shapes) {
    for (const { mask, colour, outline = colour, ...look } of shapes) {
      drawMask(context, this.view, mask, { ...look, colour: strong(colour), outline, hasShade: true });
    }
  }

  /** Where the wipe begins: under the pointer, or at the cross in the middle. */
  get #edge() {
    return this.aims || this.wipeX === null ? this.view.screen.width / 2 : this.wipeX;
  }

  #drawWipe(context, { raster, display }, ratio) {
    context.save();
    context.beginPath();
    context.rect(this.#edge * ratio, 0, this.canvas.width, this.canvas.height);
    context.clip();
    const missing = raster.draw(context, this.view, display, ratio);
    context.restore();
    return missing;
  }

  /** Draw where the wipe begins, with its name, but for the place of the pointer. */
  #drawEdge(context, { name }) {
    const x = this.#edge;
    const y = this.pointer?.y ?? 0;
    context.beginPath();
    context.moveTo(x, 0);
    context.lineTo(x, y - EDGE_GAP_PX);
    context.moveTo(x, y + EDGE_GAP_PX);
    context.lineTo(x, this.view.screen.height);
    strokeSeen(context);
    context.font = "12px system-ui, sans-serif";
    context.lineWidth = 3;
    context.strokeStyle = "#000";
    context.fillStyle = "#fff";
    context.strokeText(name, x + 8, 16);
    context.fillText(name, x + 8, 16);
  }

  #drawPrompts(context, { points, box, brush, corners, closed }) {
    const { view, gesture, pointer } = this;
    if (corners?.length) {
      const onScreen = corners.map((place) => view.toScreen(place));
      this.#drawCorners(context, onScreen, closed ? onScreen[0] : pointer, closed);
    }
    const drawn = corners ? null : gesture?.kind === "box" && gesture.moved ? boxOf(gesture.from, gesture.to) : box;
    if (drawn) {
      const [x0, y0, x1, y1] = drawn;
      drawBox(context, view.toScreen({ x: x0, y: y0 }), view.toScreen({ x: x1, y: y1 }));
    }
    for (const [x, y, label] of points) {
      drawClick(context, view.toScreen({ x: x + 0.5, y: y + 0.5 }), label === 1, CLICK_RADIUS_PX);
    }
    if (this.aims) drawCross(context, view.toScreen(view.middle));
    if (brush && pointer) drawBrush(context, pointer, brush.radius * view.zoom, brush.erases ? "#ff9a76" : "#fff");
  }

  /** Draw the edges of a polygon as far as its end: the pointer, or the first corner of a closed one; on the screen. */
  #drawCorners(context, corners, end, closed) {
    context.beginPath();
    for (const { x, y } of end ? [...corners, end] : corners) context.lineTo(x, y);
    strokeSeen(context);
    for (const [i, at] of corners.entries()) {
      if (i === 0 && !closed) drawDisc(context, at, CLOSE_PX, "#1a985080", "#fff");
      else drawDisc(context, at, 4, "#fff", "#000");
    }
  }

  /** Whether a place of the image is at another one, on the screen. */
  isAt(one, other) {
    return distance(one, other) * this.view.zoom <= CLOSE_PX;
  }

  #listen() {
    const { canvas } = this;
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => {
      if (this.gesture || event.button > 2) return;
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      const at = placeOf(event);
      const from = this.view.toImage(at);
      const brush = this.scene()?.brush;
      let kind = ["box", "pan", "level"][event.button];
      if (event.shiftKey && event.button === 0) kind = "pan";
      else if (brush && event.button !== 1) {
        kind = "stroke";
        this.act.beginStroke();
        this.act.stroke(from, from, brush.erases !== (event.button === 2));
      }
      const corner = this.scene()?.corners?.findIndex((known) => this.isAt(from, known)) ?? -1;
      if (kind === "box" && corner >= 0) kind = "corner";
      this.gesture = { kind, corner, button: event.button, shift: event.shiftKey, at, from, to: from, last: at, moved: false };
      if (kind === "stroke") this.gesture.erases = brush.erases !== (event.button === 2);
      event.preventDefault();
    });
    canvas.addEventListener("pointermove", (event) => {
      const at = placeOf(event);
      this.pointer = at;
      this.wipeX = at.x;
      this.aims = false;
      const { gesture, view } = this;
      this.act.hover(view.toImage(at));
      if (gesture) {
        const [dx, dy] = [at.x - gesture.last.x, at.y - gesture.last.y];
        gesture.moved ||= distance(at, gesture.at) >= CLICK_PX;
        if (gesture.moved || gesture.kind === "stroke") {
          const to = view.toImage(at);
          if (gesture.kind === "pan") view.pan(dx, dy);
          if (gesture.kind === "corner") this.act.moveCorner(gesture.corner, to);
          if (gesture.kind === "level") this.act.level(dx / 200, -dy / 400);
          if (gesture.kind === "stroke") this.act.stroke(gesture.to, to, gesture.erases);
          gesture.to = to;
          gesture.last = at;
        }
      }
      this.redraw();
    });
    canvas.addEventListener("pointerup", (event) => {
      const { gesture } = this;
      if (!gesture || event.button !== gesture.button) return;
      this.gesture = null;
      if (gesture.kind === "stroke") this.act.endStroke();
      else if (!gesture.moved) {
        if (gesture.shift) this.act.select(gesture.from);
        else if (gesture.button !== 1) this.act.click(gesture.from, gesture.button === 0 ? 1 : 0);
      } else if (gesture.kind === "box" && this.scene()?.corners) this.act.click(gesture.to, 1); // a corner, though dragged
      else if (gesture.kind === "box") this.act.box(boxOf(gesture.from, gesture.to));
      this.redraw();
    });
    canvas.addEventListener("pointercancel", () => {
      if (this.gesture?.kind === "stroke") this.act.endStroke();
      this.gesture = null;
      this.redraw();
    });
    canvas.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.act.hover(null);
      this.redraw();
    });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 30 : 1;
      const at = placeOf(event);
      this.view.zoomBy(Math.exp((-event.deltaY * lines) / 400), at);
      this.act.hover(this.view.toImage(at));
      this.redraw();
    }, { passive: false });
  }
}

function boxOf(one, other) {
  return [Math.min(one.x, other.x), Math.min(one.y, other.y), Math.max(one.x, other.x), Math.max(one.y, other.y)];
}

function placeOf({ offsetX, offsetY }) {
  return { x: offsetX, y: offsetY };
}
