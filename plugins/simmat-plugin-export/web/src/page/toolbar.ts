/** Tools, undo, zoom, and the work that is going on. */

import { byId, setPressed } from "shared/dom.js";
import { setText } from "./dom";
import { duration } from "./numbers";
import type { Stage } from "./stage";
import type { Tool, Workspace } from "./workspace";

export function setUpToolbar(workspace: Workspace, stage: Stage): void {
  const toolbar = byId("toolbar");
  const tools = [...toolbar.querySelectorAll<HTMLElement>("[data-tool]")];
  for (const button of tools) button.addEventListener("click", () => workspace.set({ tool: button.dataset.tool as Tool }));
  const actions: Record<string, () => void> = {
    undo: () => workspace.undo(),
    redo: () => workspace.redo(),
    everything: () => void workspace.findEverything(),
    "task-cancel": () => workspace.cancel(),
    "zoom-in": () => stage.move((view) => view.zoomBy(1.5)),
    "zoom-out": () => stage.move((view) => view.zoomBy(1 / 1.5)),
    "zoom-fit": () => stage.move((view) => view.fit()),
    "zoom-native": () => stage.move((view) => view.zoomBy(1 / (view.zoom * (window.devicePixelRatio || 1)))),
  };
  for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", action);
  const radius = byId<HTMLInputElement>("brush-radius");
  radius.addEventListener("input", () => workspace.set({ brushRadius: 2 ** Number(radius.value) }));
  makeRoving(toolbar);

  stage.onView = () => setText(byId("zoom-native"), `${Math.round(100 * stage.view.zoom * (window.devicePixelRatio || 1))} %`);
  workspace.onChange(() => {
    const { tool, task, current } = workspace;
    const isReady = workspace.hasImage;
    toolbar.hidden = !workspace.images.length;
    for (const button of tools) setPressed(button, button.dataset.tool === tool);
    for (const button of toolbar.querySelectorAll("button")) button.disabled = !isReady;
    byId("brush-size").hidden = tool !== "brush" && tool !== "eraser";
    radius.value = String(Math.log2(workspace.brushRadius));
    byId<HTMLButtonElement>("undo").disabled = !isReady || !current?.history.canUndo;
    byId<HTMLButtonElement>("redo").disabled = !isReady || !current?.history.canRedo;
    byId<HTMLButtonElement>("everything").disabled = !isReady || task !== null;
    stage.canvas.dataset.tool = isReady ? tool : "";
    showTask(workspace);
  });
}

function showTask({ task }: Workspace): void {
  byId("task").hidden = !task;
  if (!task) return;
  setText(byId("task-title"), `${task.title} …`);
  const progress = byId<HTMLProgressElement>("task-progress");
  if (Number.isNaN(task.share)) progress.removeAttribute("value");
  else progress.value = task.share;
  setText(byId("task-left"), task.secondsLeft === undefined ? "" : `${duration(task.secondsLeft)} left`);
  byId("task-cancel").hidden = !task.canCancel;
}

/** One stop of the Tab key for all tools; left and right go between them. */
function makeRoving(toolbar: HTMLElement): void {
  const buttons = [...toolbar.querySelectorAll("button")];
  const stopAt = (chosen: HTMLElement) => {
    for (const button of buttons) button.tabIndex = button === chosen ? 0 : -1;
  };
  stopAt(buttons[0]);
  toolbar.addEventListener("focusin", ({ target }) => {
    if (buttons.includes(target as HTMLButtonElement)) stopAt(target as HTMLElement);
  });
  toolbar.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const enabled = buttons.filter((button) => !button.disabled);
    const at = enabled.indexOf(event.target as HTMLButtonElement);
    if (!step || at < 0) return;
    event.preventDefault();
    event.stopPropagation();
    enabled[(at + step + enabled.length) % enabled.length].focus();
  });
}
