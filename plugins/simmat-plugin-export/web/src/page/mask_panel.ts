/** Opacity and outlines of masks, the class map, and the classes. */

import { byId, element, setPressed, swatch } from "shared/dom.js";
import { setText } from "./dom";
import type { Workspace } from "./workspace";

export function setUpMaskPanel(workspace: Workspace): void {
  const { info } = workspace.engine;
  const opacity = byId<HTMLInputElement>("opacity");
  opacity.value = String(workspace.opacity);
  opacity.addEventListener("input", () => workspace.set({ opacity: Number(opacity.value) }));
  const leastScore = byId<HTMLInputElement>("least-score");
  leastScore.addEventListener("input", () => workspace.setLeastScore(Number(leastScore.value)));
  byId("outlines").addEventListener("click", () => workspace.set({ hasOutlines: !workspace.hasOutlines }));
  byId("hide").addEventListener("click", () => workspace.set({ isHidden: !workspace.isHidden }));
  byId("class-map").hidden = !info.hasClassMap;
  byId("class-map").addEventListener("click", () => void workspace.toggleClassMap());
  byId("class-section").hidden = !info.classes.size;
  const buttons = classButtons(workspace);

  workspace.onChange(() => {
    leastScore.value = String(workspace.leastScore);
    setText(byId("least-score-text"), workspace.leastScore.toFixed(2));
    setPressed(byId("outlines"), workspace.hasOutlines);
    setPressed(byId("hide"), workspace.isHidden);
    setPressed(byId("class-map"), workspace.showsClassMap);
    byId<HTMLButtonElement>("class-map").disabled = !workspace.hasImage;
    const { draft } = workspace.labels;
    const canChoose = draft !== null || workspace.selectedObject !== null;
    for (const button of buttons) button.disabled = !canChoose;
    void workspace.loadClassMap(); // of an image that was opened while class maps are shown
  });
}

function classButtons(workspace: Workspace): HTMLButtonElement[] {
  const buttons: HTMLButtonElement[] = [];
  let number = 1;
  for (const [value, { name, colour }] of workspace.engine.info.classes) {
    const key = number <= 9 ? [element("kbd", {}, String(number))] : [];
    const button = element("button", { title: "Class of the selected object" }, swatch(colour), element("span", { class: "label" }, name), ...key);
    button.addEventListener("click", () => workspace.setClass(value));
    buttons.push(button);
    byId("class-list").append(element("li", {}, button));
    number += 1;
  }
  return buttons;
}
