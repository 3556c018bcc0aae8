/** What is seen before an image is open: what the model is, and where images go. */

import { byId, element, swatch } from "shared/dom.js";
import type { ModelInfo } from "../engine";
import { setText } from "./dom";
import { channelTitle, fewOf, listed } from "./numbers";
import type { Workspace } from "./workspace";

export function setUpStartScreen(workspace: Workspace, chooseFiles: () => void): void {
  const { info } = workspace.engine;
  setText(byId("start-title"), info.title);
  setText(byId("sentence"), sentenceOf(info));
  setText(byId("start-accepts"), `${listed(info.accepts)} – one or many, also folders`);
  showPicture(byId("picture-large"), info.picture);
  showPicture(byId("picture-small"), info.picture);
  const chips = [...info.classes.values()].slice(0, 12).map(({ name, colour }) => element("li", {}, swatch(colour), name));
  byId("start-classes").append(...chips);
  byId("choose-files").addEventListener("click", chooseFiles);
  byId("start").addEventListener("click", (event) => {
    const isZone = (event.target as Element).closest("#drop-zone") && !(event.target as Element).closest("button");
    if (isZone) chooseFiles();
  });
  workspace.onChange(() => show(workspace));
}

function show(workspace: Workspace): void {
  const { current, opened, startError } = workspace;
  const error = startError || current?.error || "";
  byId("start").hidden = opened !== null || (workspace.task !== null && current !== null);
  byId("introduction").hidden = error !== "";
  byId("start-error").hidden = !error;
  setText(byId("start-error-title"), startError ? "The model does not run in this browser" : "This image could not be opened");
  setText(byId("start-error-text"), error);
}

/** "Finds crop and weed in multispectral images with the channels red, green, blue and nir." */
function sentenceOf(info: ModelInfo): string {
  const names = [...info.classes.values()].map(({ name }) => name);
  const found = names.length ? fewOf(names, 4) : "objects";
  const channels = fewOf(info.channels.map(channelTitle), 4);
  const word = info.channels.length === 1 ? "channel" : "channels";
  return `Finds ${found} in ${info.modality} images with the ${word} ${channels}.`;
}

export function showPicture(image: HTMLElement, address: string): void {
  image.hidden = !address;
  if (address) (image as HTMLImageElement).src = address;
}
