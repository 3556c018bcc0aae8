/** What keys do. */

import { AIM_KEYS, BRUSH_KEYS, historyKey, ofKey, VIEW_KEYS } from "shared/keys.js";
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
  const aim = ([x, y]: readonly [number, number], step: number) => {
    stage.showsCross = true;
    stage.move((view) => view.pan(x * step, y * step));
    panel.hover(stage.view.middle);
  };
  const clickAtCross = (onObject: boolean) => {
    stage.showsCross = true;
    workspace.click(stage.view.middle, onObject);
  };
  const keys: Record<string, () => void> = {
    Enter: () => void workspace.accept(),
    Escape: () => (workspace.task?.canCancel ? workspace.cancel() : workspace.drop()),
    Delete: () => workspace.deleteSelected(),
    Backspace: () => workspace.deleteSelected(),
    c: () => workspace.set({ tool: "add" }),
    x: () => workspace.set({ tool: "remove" }),
    b: () => workspace.set({ tool: "brush" }),
    e: () => workspace.set({ tool: "eraser" }),
    v: () => workspace.set({ tool: "move" }),
    s: () => void workspace.findEverything(),
    o: () => void (workspace.engine.info.hasClassMap && workspace.toggleClassMap()),
    h: () => workspace.set({ isHidden: !workspace.isHidden }),
    q: () => table.toggle(),
    l: () => panel.fitValues(),
    L: () => panel.showAllValues(),
    p: () => clickAtCross(true),
    m: () => clickAtCross(false),
    PageDown: () => workspace.turnPage(1),
    PageUp: () => workspace.turnPage(-1),
  };
  for (const [key, change] of Object.entries(VIEW_KEYS)) keys[key] = () => stage.move(change);
  for (const [key, factor] of Object.entries(BRUSH_KEYS)) keys[key] = () => resizeBrush(factor);

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
    const direction = AIM_KEYS[event.key];
    const action = direction ? () => aim(direction, event.shiftKey ? FINE_PAN_PX : PAN_PX) : ofKey(keys, event.key);
    if (!action) return;
    event.preventDefault();
    action();
  });
}

function undoOrRedo(event: KeyboardEvent, workspace: Workspace): void {
  const step = historyKey(event);
  if (!step) return;
  event.preventDefault();
  if (step === "undo") workspace.undo();
  else workspace.redo();
}

/** 1 is the first class, 0 is none. */
function chooseClass(workspace: Workspace, digit: number): void {
  const values = [...workspace.engine.info.classes.keys()];
  if (digit === 0) workspace.setClass(null);
  else if (digit <= values.length) workspace.setClass(values[digit - 1]);
}
