/** What keys do. */

import type { DisplayPanel } from "./display_panel";
import { open } from "./dialogs";
import type { Stage } from "./stage";
import type { ObjectTable } from "./table";
import type { Workspace } from "./workspace";

const PAN_PX = 60;
const FINE_PAN_PX = 4; // with Shift
const SMALLEST_BRUSH = 1;
const LARGEST_BRUSH = 128;

export function setUpKeys(workspace: Workspace, stage: Stage, panel: DisplayPanel, table: ObjectTable): void {
  const resizeBrush = (factor: number) => {
    const brushRadius = Math.min(LARGEST_BRUSH, Math.max(SMALLEST_BRUSH, workspace.brushRadius * factor));
    workspace.set({ brushRadius });
  };
  const aim = (dx: number, dy: number) => {
    stage.showsCross = true;
    stage.move((view) => view.pan(dx, dy));
    panel.hover(stage.view.middle);
  };
  const clickAtCross = (onObject: boolean) => {
    stage.showsCross = true;
    workspace.click(stage.view.middle, onObject);
  };
  const keys: Record<string, (pan: number) => void> = {
    Enter: () => void workspace.accept(),
    Escape: () => (workspace.task?.canCancel ? workspace.cancel() : workspace.drop()),
    Delete: () => workspace.deleteSelected(),
    Backspace: () => workspace.deleteSelected(),
    c: () => workspace.set({ tool: "add" }),
    x: () => workspace.set({ tool: "remove" }),
    b: () => workspace.set({ tool: "brush" }),
    e: () => workspace.set({ tool: "eraser" }),
    v: () => workspace.set({ tool: "move" }),
    ",": () => resizeBrush(1 / 1.25),
    ".": () => resizeBrush(1.25),
    "[": () => resizeBrush(1 / 1.25),
    "]": () => resizeBrush(1.25),
    s: () => void workspace.findEverything(),
    o: () => void (workspace.engine.info.hasClassMap && workspace.toggleClassMap()),
    h: () => workspace.set({ isHidden: !workspace.isHidden }),
    q: () => table.toggle(),
    l: () => panel.fitValues(),
    L: () => panel.showAllValues(),
    f: () => stage.move((view) => view.fit()),
    g: () => stage.move((view) => view.zoomToPixels()),
    "+": () => stage.move((view) => view.zoomBy(1.25)),
    "=": () => stage.move((view) => view.zoomBy(1.25)),
    "-": () => stage.move((view) => view.zoomBy(1 / 1.25)),
    p: () => clickAtCross(true),
    m: () => clickAtCross(false),
    ArrowLeft: (pan) => aim(pan, 0),
    ArrowRight: (pan) => aim(-pan, 0),
    ArrowUp: (pan) => aim(0, pan),
    ArrowDown: (pan) => aim(0, -pan),
    PageDown: () => workspace.turnPage(1),
    PageUp: () => workspace.turnPage(-1),
  };

  document.addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    if (document.querySelector("dialog[open]") || target.matches("select, input:not([type=range])")) return;
    if (event.key === "?" || event.key === "F1") {
      event.preventDefault();
      open("help");
      return;
    }
    if (!workspace.images.length) return;
    if (event.ctrlKey || event.metaKey) {
      undoOrRedo(event, workspace);
      return;
    }
    const pressesTarget = target.matches("button, a, summary, input") && ["Enter", " "].includes(event.key);
    const movesTarget = target.matches("input, table") && event.key.startsWith("Arrow");
    if (event.altKey || pressesTarget || movesTarget) return;
    if (/^[0-9]$/.test(event.key)) {
      chooseClass(workspace, Number(event.key));
      return;
    }
    const action = keys[event.key] ?? keys[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action(event.shiftKey ? FINE_PAN_PX : PAN_PX);
  });
}

function undoOrRedo(event: KeyboardEvent, workspace: Workspace): void {
  const key = event.key.toLowerCase();
  if (key !== "z" && key !== "y") return;
  event.preventDefault();
  if (key === "z" && !event.shiftKey) workspace.undo();
  else workspace.redo();
}

/** 1 is the first class, 0 is none. */
function chooseClass(workspace: Workspace, digit: number): void {
  const values = [...workspace.engine.info.classes.keys()];
  if (digit === 0) workspace.setClass(null);
  else if (digit <= values.length) workspace.setClass(values[digit - 1]);
}
