/** The buttons that save results, of the open image or of all. */

import { byId } from "shared/dom.js";
import { setText } from "./dom";
import { hasResults, type ImageEntry } from "./images";
import { withLeastScore } from "./labels";
import { complain } from "./messages";
import { count, shownUnit } from "./numbers";
import { classMapFiles, cocoFile, downloadFiles, maskFiles, type Results, tableFile } from "./saving/save";
import type { ZippedFile } from "./saving/zip";
import type { Workspace } from "./workspace";

const BUTTONS = ["save-masks", "save-classes", "save-coco", "save-table", "save-all"];

export function setUpSavePanel(workspace: Workspace): void {
  const { info } = workspace.engine;
  const scope = byId<HTMLSelectElement>("scope");
  byId("save-classes").hidden = !info.hasClassMap;
  byId("save-unit").hidden = !info.channels.some((channel) => channel.unit === "K" && shownUnit(channel).unit !== "K");

  const chosen = (): ImageEntry[] => {
    const { current, images } = workspace;
    const some = scope.value === "all" ? images : images.filter((entry) => entry === current);
    return some.filter((entry) => entry.size && (hasResults(entry) || entry.isSearched));
  };
  const results = (entry: ImageEntry): Results => ({
    ...entry, objects: withLeastScore(entry.history.present.objects, workspace.leastScore),
  });
  const saved = new Map<ImageEntry, ImageEntry["history"]["present"]>(); // with all objects
  const save = async (zipName: string, filesOf: (images: Results[]) => Promise<ZippedFile[]>, keepsAll = false) => {
    try {
      if (scope.value === "all" && workspace.images.some((entry) => entry.saved)) await workspace.openSaved();
      await workspace.measure();
      const images = chosen();
      const files = await filesOf(images.map(results));
      if (!files.length) return;
      setText(byId("save-text"), `Saved ${downloadFiles(files, zipName)}`);
      if (keepsAll) for (const entry of images) saved.set(entry, entry.history.present);
    } catch (error) {
      complain(error);
    }
  };
  const everything = async (images: Results[]) => [
    ...(await maskFiles(images)), ...(await classMapFiles(images)), cocoFile(images, info), tableFile(images, info),
  ];
  byId("save-masks").addEventListener("click", () => void save("masks.zip", maskFiles));
  byId("save-classes").addEventListener("click", () => void save("classes.zip", classMapFiles));
  byId("save-coco").addEventListener("click", () => void save("", async (images) => [cocoFile(images, info)], true));
  byId("save-table").addEventListener("click", () => void save("", async (images) => [tableFile(images, info)]));
  byId("save-all").addEventListener("click", () => void save("results.zip", everything, true));
  scope.addEventListener("change", () => workspace.changed());

  workspace.onChange(() => {
    byId("scope-field").hidden = workspace.images.length < 2;
    const images = chosen();
    for (const id of BUTTONS) byId<HTMLButtonElement>(id).disabled = !images.length;
    byId<HTMLButtonElement>("save-classes").disabled = !images.some((entry) => entry.classMap);
    if (!images.length) setText(byId("save-text"), "Nothing to save yet.");
    else if (scope.value === "all") setText(byId("save-text"), `${count(images.length, "image")} with results.`);
    else if (byId("save-text").textContent === "Nothing to save yet.") setText(byId("save-text"), "");
  });
  // What was not saved would be lost with the page.
  window.addEventListener("beforeunload", (event) => {
    const isLost = (entry: ImageEntry) => entry.history.canUndo && saved.get(entry) !== entry.history.present;
    if (workspace.images.some(isLost)) event.preventDefault();
  });
}
