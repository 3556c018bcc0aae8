/** The canvas with the image, what is marked in it, and what is being drawn. */

import { colourOfObject } from "./colours";
import { type Draft, nextNumber, withChosenClass } from "./labels";
import type { Place } from "./masks";
import { Picture } from "./picture";
import { drawClassMap, drawMask } from "./shapes";
import { View } from "./view";
import type { Workspace } from "./workspace";

const DRAFT_LINE = "#ffffff";
const MOST_SHADED = 400;
const ON_OBJECT = "#2ecc71";
const BESIDE = "#ff5c5c";

export class Stage {
  readonly view = new View();
  /** The corners of a box while it is drawn. */
  drawnBox: readonly [Place, Place] | null = null;
  /** Where the pointer is. */
  pointer: Place | null = null;
  /** Whether keys move the image under a cross in the middle. */
  showsCross = false;
  /** Called after the view changed. */
  onView: () => void = () => undefined;

  #picture: Picture | null = null;
  #objects = document.createElement("canvas");
  #drawnObjects: readonly unknown[] = [];
  #frame = 0;

  constructor(readonly canvas: HTMLCanvasElement, readonly workspace: Workspace) {
    new ResizeObserver(() => this.#resize()).observe(canvas);
    workspace.onChange(() => this.#show());
  }

  /** Change the view, and draw. */
  move(change: (view: View) => void): void {
    change(this.view);
    this.onView();
    this.redraw();
  }

  redraw(): void {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  #show(): void {
    const { opened } = this.workspace;
    if (opened !== (this.#picture?.image ?? null)) {
      const before = this.#picture?.image;
      this.#picture = opened && new Picture(opened);
      const isSameSize = before && opened && before.width === opened.width && before.height === opened.height;
      if (opened && !isSameSize) this.move((view) => view.setImage(opened));
    }
    this.redraw();
  }

  #resize(): void {
    const { canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    this.view.setScreen({ width: canvas.clientWidth, height: canvas.clientHeight });
    this.onView();
    this.#draw(); // at once: a canvas of another size is empty
  }

  #draw(): void {
    const context = this.canvas.getContext("2d")!;
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const { workspace, view } = this;
    const { display, opened } = workspace;
    if (!this.#picture || !display || !opened) return;

    this.#picture.draw(context, view, display);
    if (!workspace.isHidden) {
      const { current, engine, showsClassMap } = workspace;
      if (showsClassMap && current?.classMap) drawClassMap(context, view, current.classMap, engine.info, workspace.opacity);
      this.#drawObjects(context, ratio);
    }
    const { draft } = workspace.labels;
    if (draft) this.#drawDraft(context, draft);
    if (this.drawnBox) this.#drawBox(context, ...this.drawnBox);
    this.#drawCursor(context);
  }

  /** Draw the objects on a canvas of their own, again only if something of them changed: thousands take a while. */
  #drawObjects(context: CanvasRenderingContext2D, ratio: number): void {
    const { workspace, view, canvas } = this;
    const { objects, draft } = workspace.labels;
    const { zoom, offset } = view;
    const drawn = [
      objects, workspace.leastScore, draft?.replaces, workspace.selected, workspace.opacity, workspace.hasOutlines, zoom, offset.x, offset.y, canvas.width, canvas.height,
    ];
    if (drawn.some((value, index) => value !== this.#drawnObjects[index])) {
      this.#drawnObjects = drawn;
      this.#objects.width = canvas.width;
      this.#objects.height = canvas.height;
      const layer = this.#objects.getContext("2d")!;
      layer.scale(ratio, ratio);
      for (const object of workspace.shownObjects) {
        if (object.number === draft?.replaces) continue;
        const isSelected = object.number === workspace.selected;
        const colour = colourOfObject(workspace.engine.info, object.mask, object.number);
        drawMask(layer, view, object.mask, {
          colour,
          opacity: isSelected ? Math.min(1, workspace.opacity + 0.25) : workspace.opacity,
          outline: workspace.hasOutlines || isSelected ? colour : null,
          lineWidth: isSelected ? 3 : 1.5,
          isDashed: false,
          hasShade: isSelected || objects.length <= MOST_SHADED,
        });
      }
    }
    context.save();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(this.#objects, 0, 0);
    context.restore();
  }

  #drawDraft(context: CanvasRenderingContext2D, draft: Draft): void {
    const { view, workspace } = this;
    if (draft.mask) {
      const number = draft.replaces ?? nextNumber(workspace.labels.objects);
      drawMask(context, view, draft.mask, {
        colour: colourOfObject(workspace.engine.info, withChosenClass(draft.mask, draft.classId), number),
        opacity: draft.isWaiting ? 0.3 : 0.5,
        outline: DRAFT_LINE,
        lineWidth: 2,
        isDashed: draft.isWaiting,
        hasShade: true,
      });
    }
    const { points, box } = draft.prompt;
    if (box) this.#drawBox(context, { x: box[0], y: box[1] }, { x: box[2], y: box[3] });
    const radius = workspace.tool === "brush" || workspace.tool === "eraser" ? 3 : 5.5;
    for (const { x, y, onObject } of points) {
      const at = view.toScreen({ x: x + 0.5, y: y + 0.5 });
      drawPoint(context, at, onObject, radius);
    }
  }

  #drawBox(context: CanvasRenderingContext2D, one: Place, other: Place): void {
    const from = this.view.toScreen(one);
    const to = this.view.toScreen(other);
    for (const [width, colour] of [[3.5, "rgb(0 0 0 / 60%)"], [1.5, DRAFT_LINE]] as const) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.strokeRect(from.x, from.y, to.x - from.x, to.y - from.y);
    }
  }

  #drawCursor(context: CanvasRenderingContext2D): void {
    const { workspace, view } = this;
    const isPainting = workspace.tool === "brush" || workspace.tool === "eraser";
    if (isPainting && this.pointer) {
      const at = view.toScreen(this.pointer);
      context.beginPath();
      context.arc(at.x, at.y, workspace.brushRadius * view.zoom, 0, 2 * Math.PI);
      strokeTwice(context);
    }
    if (!this.showsCross) return;
    const { width, height } = view.screen;
    context.beginPath();
    context.moveTo(width / 2 - 12, height / 2);
    context.lineTo(width / 2 + 12, height / 2);
    context.moveTo(width / 2, height / 2 - 12);
    context.lineTo(width / 2, height / 2 + 12);
    strokeTwice(context);
  }
}

/** A plus or a minus, so that colour is not the only difference. */
function drawPoint(context: CanvasRenderingContext2D, { x, y }: Place, onObject: boolean, radius: number): void {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = onObject ? ON_OBJECT : BESIDE;
  context.fill();
  context.lineWidth = 1.5;
  context.strokeStyle = "#fff";
  context.stroke();
  const arm = radius * 0.55;
  context.beginPath();
  context.moveTo(x - arm, y);
  context.lineTo(x + arm, y);
  if (onObject) context.moveTo(x, y - arm);
  if (onObject) context.lineTo(x, y + arm);
  context.strokeStyle = "#10151a";
  context.stroke();
}

/** Dark and light, to be seen on any image. */
function strokeTwice(context: CanvasRenderingContext2D): void {
  context.lineWidth = 3.5;
  context.strokeStyle = "rgb(0 0 0 / 60%)";
  context.stroke();
  context.lineWidth = 1.5;
  context.strokeStyle = "#fff";
  context.stroke();
}
