/** The canvas with the image, what is marked in it, and what is being drawn. */

import { rgbOf } from "shared/colours.js";
import { fitCanvas } from "shared/dom.js";
import { drawMask } from "shared/drawn_masks.js";
import { Layer } from "shared/layer.js";
import { drawBox, drawBrush, drawClick, drawCross } from "shared/marks.js";
import type { Place } from "shared/masks.js";
import { View } from "shared/view.js";
import { drawClassMap } from "./class_maps";
import { colourOfObject } from "./colours";
import { type Draft, type LabelledObject, nextNumber, withChosenClass } from "./labels";
import { Picture } from "./picture";
import type { Workspace } from "./workspace";

const WHITE = [255, 255, 255] as const;
const MOST_SHADED = 400;
const EDGE_PX = 12; // around a whole image
const BOTTOM_PX = 64; // below a whole image, for the bar with what is drawn

export class Stage {
  readonly view = new View(EDGE_PX, BOTTOM_PX);
  /** The corners of a box while it is drawn. */
  drawnBox: readonly [Place, Place] | null = null;
  /** Where the pointer is. */
  pointer: Place | null = null;
  /** Whether keys move the image under a cross in the middle. */
  showsCross = false;
  /** Called after the view changed. */
  onView: () => void = () => undefined;

  #picture: Picture | null = null;
  #objects = new Layer();
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
    const { width, height } = fitCanvas(this.canvas);
    this.view.setScreen({ width, height });
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
      this.#drawObjects(context);
    }
    const { draft } = workspace.labels;
    if (draft) this.#drawDraft(context, draft);
    if (this.drawnBox) this.#drawBox(context, ...this.drawnBox);
    this.#drawCursor(context);
  }

  #drawObjects(context: CanvasRenderingContext2D): void {
    const { workspace, view } = this;
    const { objects, draft } = workspace.labels;
    const { zoom, offset } = view;
    const { leastScore, selected, opacity, hasOutlines } = workspace;
    const drawn = [objects, leastScore, draft?.replaces, selected, opacity, hasOutlines, zoom, offset.x, offset.y];
    this.#objects.draw(context, drawn, (layer) => {
      for (const object of workspace.shownObjects) {
        if (object.number !== draft?.replaces) this.#drawObject(layer, object);
      }
    });
  }

  #drawObject(context: CanvasRenderingContext2D, { number, mask }: LabelledObject): void {
    const { workspace, view } = this;
    const isSelected = number === workspace.selected;
    const colour = rgbOf(colourOfObject(workspace.engine.info, mask, number));
    drawMask(context, view, mask, {
      colour,
      opacity: isSelected ? Math.min(1, workspace.opacity + 0.25) : workspace.opacity,
      outline: workspace.hasOutlines || isSelected ? colour : null,
      lineWidth: isSelected ? 3 : 1.5,
      dash: [],
      hasShade: isSelected || workspace.labels.objects.length <= MOST_SHADED,
    });
  }

  #drawDraft(context: CanvasRenderingContext2D, draft: Draft): void {
    const { view, workspace } = this;
    if (draft.mask) {
      const number = draft.replaces ?? nextNumber(workspace.labels.objects);
      const colour = colourOfObject(workspace.engine.info, withChosenClass(draft.mask, draft.classId), number);
      drawMask(context, view, draft.mask, {
        colour: rgbOf(colour),
        opacity: draft.isWaiting ? 0.3 : 0.5,
        outline: WHITE,
        lineWidth: 2,
        dash: draft.isWaiting ? [4, 3] : [],
        hasShade: true,
      });
    }
    const { points, box } = draft.prompt;
    if (box) this.#drawBox(context, { x: box[0], y: box[1] }, { x: box[2], y: box[3] });
    const radius = workspace.tool === "brush" || workspace.tool === "eraser" ? 3 : 5.5;
    for (const { x, y, onObject } of points) {
      const at = view.toScreen({ x: x + 0.5, y: y + 0.5 });
      drawClick(context, at, onObject, radius);
    }
  }

  #drawBox(context: CanvasRenderingContext2D, one: Place, other: Place): void {
    drawBox(context, this.view.toScreen(one), this.view.toScreen(other));
  }

  #drawCursor(context: CanvasRenderingContext2D): void {
    const { workspace, view } = this;
    const isPainting = workspace.tool === "brush" || workspace.tool === "eraser";
    if (isPainting && this.pointer) drawBrush(context, view.toScreen(this.pointer), workspace.brushRadius * view.zoom, "#fff");
    if (this.showsCross) drawCross(context, view.toScreen(view.middle));
  }
}
