/** The canvas: draws image, masks and what is being drawn, and turns the pointer into clicks, boxes and strokes. */

import { strong } from "./colours.js";
import { View } from "./view.js";

const CLICK_PX = 4; // a pointer that moves less has clicked
const EDGE_GAP_PX = 14; // around the pointer, the edge of a wipe hides nothing
const CLOSE_PX = 8; // a click so near to the first corner closes a polygon

export class Stage {
  /**
   * @param canvas the element
   * @param scene () => {raster, display, wipe: {raster, display, name} or null, objects: {version, shapes()}, shapes: [{mask, colour, outline, alpha, line, dash}], points, box, brush, corners, closed} or null
   * @param act what gestures do: click, box, beginStroke, stroke, endStroke, select, level, hover, seen, moveCorner
   */
  constructor(canvas, scene, act) {
    Object.assign(this, { canvas, scene, act });
    this.view = new View();
    this.gesture = null;
    this.pointer = null;
    this.wipeX = null; // where the pointer was last, across
    this.aims = false; // a cross in the middle shows where keys click
    this.frame = 0;
    this.objects = new OffscreenCanvas(1, 1); // their masks, as they are in the view
    this.drawn = ""; // what that was drawn of
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
    this.act.hover(this.middle);
  }

  /** Image position in the middle of the view. */
  get middle() {
    return this.view.toImage(this.view.width / 2, this.view.height / 2);
  }

  setImage(width, height) {
    this.view.image = [width, height];
    this.view.fit();
    this.redraw();
  }

  #resize() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const [x, y] = this.view.toImage(this.view.width / 2, this.view.height / 2);
    const fitted = Math.abs(this.view.zoom - this.view.fitting) < 1e-9;
    this.canvas.width = Math.max(1, Math.round(width * ratio));
    this.canvas.height = Math.max(1, Math.round(height * ratio));
    Object.assign(this.view, { width, height });
    if (fitted) this.view.fit();
    else this.view.centre(x, y);
    this.#draw();
  }

  #draw() {
    const context = this.canvas.getContext("2d");
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#161616";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    const scene = this.scene();
    if (!scene) return;
    const { view } = this;
    let missing = scene.raster.draw(context, view, scene.display, ratio);
    if (scene.wipe) missing += this.#drawWipe(context, scene.wipe, ratio);

    this.#drawObjects(scene.objects, ratio);
    context.drawImage(this.objects, 0, 0);
    this.#drawShapes(context, scene.shapes, ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (scene.wipe) this.#drawEdge(context, scene.wipe);
    this.#drawPrompts(context, scene);
    this.act.seen(missing);
  }

  /** Draw the objects on a canvas of their own, if they or the view have changed: thousands take a second. */
  #drawObjects({ version, shapes }, ratio) {
    const { view, canvas } = this;
    const drawn = JSON.stringify([version, view.zoom, view.x, view.y, canvas.width, canvas.height]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    Object.assign(this.objects, { width: canvas.width, height: canvas.height }); // which clears it
    this.#drawShapes(this.objects.getContext("2d"), shapes(), ratio);
  }

  #drawShapes(context, shapes, ratio) {
    const { view } = this;
    context.setTransform(view.zoom * ratio, 0, 0, view.zoom * ratio, view.x * ratio, view.y * ratio);
    const [left, top] = view.toImage(0, 0);
    const [right, bottom] = view.toImage(view.width, view.height);
    for (const { mask, colour, outline, alpha, line, dash } of shapes) {
      if (mask.x > right || mask.y > bottom || mask.x + mask.w < left || mask.y + mask.h < top) continue;
      if (alpha) mask.draw(context, strong(colour), alpha);
      context.setLineDash([]);
      context.strokeStyle = "#000";
      context.lineWidth = (line + 1.8) / view.zoom;
      context.stroke(mask.outline());
      context.setLineDash((dash ?? []).map((length) => length / view.zoom));
      context.strokeStyle = `rgb(${(outline ?? colour).join(" ")})`;
      context.lineWidth = line / view.zoom;
      context.stroke(mask.outline());
    }
    context.setLineDash([]);
  }

  /** Where the wipe begins: under the pointer, or at the cross in the middle. */
  get #edge() {
    return this.aims || this.wipeX === null ? this.view.width / 2 : this.wipeX;
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
    const y = this.pointer?.[1] ?? 0;
    strokeSeen(context, () => {
      context.moveTo(x, 0);
      context.lineTo(x, y - EDGE_GAP_PX);
      context.moveTo(x, y + EDGE_GAP_PX);
      context.lineTo(x, this.view.height);
    });
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
      const onScreen = corners.map(([x, y]) => view.toScreen(x, y));
      this.#drawCorners(context, onScreen, closed ? onScreen[0] : pointer, closed);
    }
    const drawn = corners ? null : gesture?.kind === "box" && gesture.moved ? boxOf(gesture.from, gesture.to) : box;
    if (drawn) {
      const [x0, y0] = view.toScreen(drawn[0], drawn[1]);
      const [x1, y1] = view.toScreen(drawn[2], drawn[3]);
      strokeSeen(context, () => context.rect(x0, y0, x1 - x0, y1 - y0));
    }
    for (const [x, y, label] of points) {
      const [cx, cy] = view.toScreen(x + 0.5, y + 0.5);
      drawDisc(context, cx, cy, 7, label ? "#1a9850" : "#d73027", "#fff");
      context.beginPath(); // plus and minus: not by colour alone
      context.moveTo(cx - 4, cy);
      context.lineTo(cx + 4, cy);
      if (label) {
        context.moveTo(cx, cy - 4);
        context.lineTo(cx, cy + 4);
      }
      context.lineWidth = 2;
      context.stroke();
    }
    if (this.aims) {
      const [cx, cy] = [view.width / 2, view.height / 2];
      strokeSeen(context, () => {
        for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
          context.moveTo(cx + 4 * dx, cy + 4 * dy);
          context.lineTo(cx + 14 * dx, cy + 14 * dy);
        }
      });
    }
    if (brush && pointer) {
      const circle = () => context.arc(...pointer, brush.radius * view.zoom, 0, 7);
      strokeSeen(context, circle, brush.erases ? "#ff9a76" : "#fff");
    }
  }

  /** Draw the edges of a polygon as far as its end: the pointer, or the first corner of a closed one; on the screen. */
  #drawCorners(context, corners, end, closed) {
    strokeSeen(context, () => {
      for (const [x, y] of end ? [...corners, end] : corners) context.lineTo(x, y);
    });
    for (const [i, [x, y]] of corners.entries()) {
      if (i === 0 && !closed) drawDisc(context, x, y, CLOSE_PX, "#1a985080", "#fff");
      else drawDisc(context, x, y, 4, "#fff", "#000");
    }
  }

  /** Whether an image position is at another one, on the screen. */
  isAt(one, other) {
    return Math.hypot(one[0] - other[0], one[1] - other[1]) * this.view.zoom <= CLOSE_PX;
  }

  #listen() {
    const { canvas } = this;
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => {
      if (this.gesture || event.button > 2) return;
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      const at = [event.offsetX, event.offsetY];
      const from = this.view.toImage(...at);
      const brush = this.scene()?.brush;
      let kind = ["box", "pan", "level"][event.button];
      if (event.shiftKey && event.button === 0) kind = "pan";
      else if (brush && event.button !== 1) {
        kind = "stroke";
        this.act.beginStroke();
        this.act.stroke(from, from, brush.erases === (event.button === 2));
      }
      const corner = this.scene()?.corners?.findIndex((known) => this.isAt(from, known)) ?? -1;
      if (kind === "box" && corner >= 0) kind = "corner";
      this.gesture = { kind, corner, button: event.button, shift: event.shiftKey, at, from, to: from, last: at, moved: false };
      if (kind === "stroke") this.gesture.paints = brush.erases === (event.button === 2);
      event.preventDefault();
    });
    canvas.addEventListener("pointermove", (event) => {
      const at = [event.offsetX, event.offsetY];
      this.pointer = at;
      [this.wipeX] = at;
      this.aims = false;
      const { gesture, view } = this;
      this.act.hover(view.toImage(...at));
      if (gesture) {
        const [dx, dy] = [at[0] - gesture.last[0], at[1] - gesture.last[1]];
        gesture.moved ||= Math.hypot(at[0] - gesture.at[0], at[1] - gesture.at[1]) >= CLICK_PX;
        if (gesture.moved || gesture.kind === "stroke") {
          const to = view.toImage(...at);
          if (gesture.kind === "pan") view.pan(dx, dy);
          if (gesture.kind === "corner") this.act.moveCorner(gesture.corner, to);
          if (gesture.kind === "level") this.act.level(dx / 200, -dy / 400);
          if (gesture.kind === "stroke") this.act.stroke(gesture.to, to, gesture.paints);
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
      this.view.zoomAt(Math.exp((-event.deltaY * lines) / 400), event.offsetX, event.offsetY);
      this.act.hover(this.view.toImage(event.offsetX, event.offsetY));
      this.redraw();
    }, { passive: false });
  }
}

function drawDisc(context, x, y, radius, fill, edge) {
  context.beginPath();
  context.arc(x, y, radius, 0, 7);
  Object.assign(context, { fillStyle: fill, strokeStyle: edge, lineWidth: 1.5 });
  context.fill();
  context.stroke();
}

/** Stroke a path with a dark edge, so that it is seen on every image. */
function strokeSeen(context, path, colour = "#fff") {
  context.beginPath();
  path();
  for (const [style, width] of [["#000", 3.5], [colour, 1.5]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.stroke();
  }
}

function boxOf([ax, ay], [bx, by]) {
  return [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
}
