/** Open images, encode them, and find the next one. */

import { get, post } from "./api.js";
import { app, holdTurn, messages, show } from "./app.js";
import { attempt, say } from "./attempt.js";
import { Labels } from "./labels.js";
import { lists, panel, stage, table, wipe } from "./parts.js";
import { Raster } from "./raster.js";
import { byId } from "./shared/dom.js";
import { ask } from "./show.js";

const SETTLED_MS = 300; // an image that is only passed is not encoded

/**
 * Open an image.
 * @param by 1 or -1 goes on to the one after or before it where it cannot be read
 * @param watched whether frames that are being filled are shown further
 */
export async function open(key, by = 0, watched = false) {
  if (!key) return;
  app.watching &&= watched;
  const opening = ++app.opening;
  await attempt(async () => {
    let image;
    try {
      image = await holdTurn(() => get(`/api/images/${key}`));
    } catch (error) {
      if (error.code !== "data") throw error;
      lists.update(key, { problem: error.message });
      messages.bad(`${lists.find(key)?.name ?? key} cannot be opened${by ? " and is skipped" : ""}: ${error.message}`, `unreadable ${key}`);
      if (by && opening === app.opening) await open(lists.neighbour(by, key), by);
      return;
    }
    if (opening !== app.opening) return;
    if (lists.find(key)?.problem) lists.update(key, { problem: "" });
    if (app.image?.key !== key) messages.clearPassing("stale");
    app.raster?.close();
    app.looking?.abort();
    if (app.draft?.mask && app.image.key !== key) {
      app.drafts.set(app.image.key, app.draft);
      messages.note(`What you were drawing in ${app.image.name} is kept: it is there when you come back.`);
    }
    const [height, width] = image.size_hw;
    const draft = app.image?.key === key ? app.draft : (app.drafts.get(key) ?? null);
    app.drafts.delete(key);
    Object.assign(app, { image, labels: new Labels(image), draft, walk: null, selected: null, suspect: null, ready: image.ready });
    app.corners = [];
    app.raster = new Raster(image, () => stage.redraw(), say, () => app.gone);
    panel.setImage(image, app.raster);
    wipe.setImage(image);
    stage.setImage({ width, height });
    table.setImage(image);
    byId("image-name").textContent = image.name;
    byId("image-name").title = image.name;
    history.replaceState(null, "", `#${key}`);
    lists.markOpen(key);
    if (image.notice) messages.note(image.notice);
    show();
    if (!image.ready) await new Promise((resolve) => setTimeout(resolve, SETTLED_MS));
    if (opening === app.opening) await encode();
  });
}

/** Open the image after (1) or before (-1) the open one. */
export function turn(by) {
  return open(lists.neighbour(by), by);
}

export async function encode() {
  const { key } = app.image;
  byId("busy").textContent = app.ready ? "" : "Encoding …";
  try {
    const { ready, seconds, window } = await post(`/api/images/${key}/encode`, { tab: app.tab });
    if (!ready || key !== app.image.key) return;
    app.ready = true;
    byId("busy").textContent = window === null
      ? `Encoded in ${seconds.toFixed(1)} s` : `Cut into windows of ${window} px: encoded around each click`;
    show();
    const next = lists.neighbour(1);
    if (next) post(`/api/images/${next}/encode`, { ahead: true }).catch(() => {});
  } catch (error) {
    byId("busy").textContent = "";
    throw error;
  }
}

/** Open a random image without labels. */
export async function openUnlabelled() {
  const key = lists.random();
  if (key === null) messages.note("Nothing unlabelled is left.", false, "next");
  else await open(key);
}

export async function setDone() {
  const { labels, draft } = app;
  const done = !labels.done;
  if (done && draft?.mask) {
    messages.note("What you are drawing is not saved yet: Enter accepts it, Esc drops it. Then D marks the image as done.");
    return;
  }
  const empty = done && !labels.objects.size;
  if (empty && (await ask(byId("empty"))) !== "empty") return;
  await holdTurn(() => attempt(() => labels.setDone(done, empty)));
}
