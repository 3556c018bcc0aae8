/** The bar below the image: what is being drawn or selected, its class, and how to go on. */

import { byId, element } from "shared/dom.js";
import { setText } from "./dom";
import { count } from "./numbers";
import type { Workspace } from "./workspace";

const NONE = "none";

export function setUpPromptBar(workspace: Workspace): void {
  const choice = byId<HTMLSelectElement>("prompt-class");
  const { classes } = workspace.engine.info;
  choice.append(element("option", { value: NONE }, "no class"));
  for (const [value, { name }] of classes) choice.append(element("option", { value }, name));
  choice.addEventListener("change", () => {
    workspace.setClass(choice.value === NONE ? null : Number(choice.value));
    byId("canvas").focus({ preventScroll: true });
  });
  byId("accept").addEventListener("click", () => void workspace.accept());
  byId("delete").addEventListener("click", () => workspace.deleteSelected());
  byId("discard").addEventListener("click", () => workspace.drop());

  workspace.onChange(() => {
    const { draft, objects } = workspace.labels;
    const object = workspace.selectedObject;
    const isOpen = workspace.hasImage;
    const isHint = !draft && !object;
    byId("prompt-bar").hidden = !isOpen || (isHint && (objects.length > 0 || workspace.task !== null));
    setText(byId("prompt-text"), textOf(workspace));
    byId("accept").hidden = !draft;
    byId("delete").hidden = !(draft ? draft.replaces !== null : object);
    byId("discard").hidden = isHint;
    setText(byId("discard"), draft ? "Discard" : "Deselect");
    choice.hidden = isHint || !classes.size;
    const classId = draft?.classId === undefined ? (draft?.mask ?? object?.mask)?.classId : draft.classId;
    choice.value = String(classId ?? NONE);
  });
}

function textOf(workspace: Workspace): string {
  const { draft } = workspace.labels;
  const object = workspace.selectedObject;
  if (draft) {
    const of = draft.replaces === null ? "" : `Object ${draft.replaces} · `;
    if (draft.isWaiting && !draft.mask) return `${of}looking …`;
    if (!draft.mask?.area) return `${of}nothing is marked`;
    return `${of}${scoreText(draft.mask.score)} · ${count(draft.mask.area, "pixel")}`;
  }
  if (object) return `Object ${object.number} · click to correct it`;
  return "Click an object, or drag a box around it";
}

function scoreText(score: number): string {
  return Number.isNaN(score) ? "painted" : `score ${score.toFixed(2)}`;
}
