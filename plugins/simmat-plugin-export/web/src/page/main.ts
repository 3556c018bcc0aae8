/** The page: it shows what the engine finds, and what the user makes of it. */

import { byId } from "shared/dom.js";
import type { Engine } from "../engine";
import { setUpDialogs } from "./dialogs";
import { DisplayPanel } from "./display_panel";
import { setText } from "./dom";
import { Gestures } from "./gestures";
import { setUpImageList } from "./image_list";
import { droppedFiles } from "./images";
import { setUpKeys } from "./keys";
import { setUpMaskPanel } from "./mask_panel";
import { complain } from "./messages";
import { channelTitle, count, fewOf } from "./numbers";
import { setUpPromptBar } from "./prompt_bar";
import { setUpSavePanel } from "./save_panel";
import { setUpSensorOptions } from "./sensor_options";
import { Stage } from "./stage";
import { setUpStartScreen } from "./start_screen";
import { ObjectTable } from "./table";
import { setUpTheme } from "./theme";
import { setUpToolbar } from "./toolbar";
import { Workspace } from "./workspace";

/** Build the page around an engine, and load its graphs. The document must have been parsed. */
export function startPage(engine: Engine): { workspace: Workspace; stage: Stage } {
  const { info } = engine;
  const workspace = new Workspace(engine);
  const stage = new Stage(byId<HTMLCanvasElement>("canvas"), workspace);
  document.title = info.title;
  setText(byId("title"), info.title);
  setText(byId("subtitle"), `${info.modality} images: ${fewOf(info.channels.map(channelTitle), 4)}`);
  setUpTheme(byId("theme-button"));
  setUpDialogs(info);
  setUpStartScreen(workspace, setUpFiles(workspace));
  setUpImageList(workspace);
  setUpToolbar(workspace, stage);
  setUpSensorOptions(workspace);
  setUpPromptBar(workspace);
  setUpMaskPanel(workspace);
  setUpSavePanel(workspace);
  const panel = new DisplayPanel(workspace);
  const table = new ObjectTable(workspace, (mask) => stage.move((view) => view.reveal(mask)));
  new Gestures(stage, workspace, (place) => panel.hover(place));
  setUpKeys(workspace, stage, panel, table);
  showBackend(workspace);
  giveKeysToImage(stage);
  void workspace.start();
  return { workspace, stage };
}

/** Say why the page cannot begin at all: it is damaged. */
export function showFailure(error: unknown): void {
  setUpTheme(byId("theme-button"));
  for (const id of ["introduction", "drop-zone", "card-button", "help-button"]) byId(id).hidden = true;
  byId("start-error").hidden = false;
  setText(byId("title"), "SimMAT");
  setText(byId("start-error-title"), "This page is damaged");
  setText(byId("start-error-text"), error instanceof Error ? error.message : String(error));
}

/** Take files from the dialog and from drops; returns what opens the dialog. */
function setUpFiles(workspace: Workspace): () => void {
  const input = byId<HTMLInputElement>("file-input");
  const chooseFiles = () => input.click();
  input.accept = [...workspace.engine.info.accepts, ".json", ".zip"].join(",");
  input.addEventListener("change", () => {
    void workspace.addFiles([...(input.files ?? [])]);
    input.value = ""; // so that the same file can be chosen again
  });
  byId("open-button").addEventListener("click", chooseFiles);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("is-dragged-over");
  });
  document.addEventListener("dragleave", ({ relatedTarget }) => {
    if (!relatedTarget) document.body.classList.remove("is-dragged-over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("is-dragged-over");
    if (!event.dataTransfer) return;
    droppedFiles(event.dataTransfer).then((files) => workspace.addFiles(files), complain);
  });
  workspace.onChange(() => {
    byId("open-button").hidden = !workspace.images.length;
  });
  return chooseFiles;
}

/** After a click on a button, keys are of the image again. Who works without a mouse stays on the button. */
function giveKeysToImage(stage: Stage): void {
  document.addEventListener("click", ({ target, detail }) => {
    const button = (target as Element).closest("#work button, #image-list button, #side-panel button");
    if (button && detail > 0 && !button.closest("#table")) stage.canvas.focus({ preventScroll: true });
  });
}

function showBackend(workspace: Workspace): void {
  workspace.onChange(() => {
    const { backend, opened } = workspace;
    const parts: string[] = [];
    if (backend) parts.push(backend.name === "webgpu" ? "WebGPU" : `WebAssembly, ${count(backend.threads, "thread")}`);
    if (opened) parts.push(`${opened.width} × ${opened.height}, ready in ${opened.seconds.toFixed(1)} s`);
    setText(byId("backend"), parts.join(" · "));
  });
}
