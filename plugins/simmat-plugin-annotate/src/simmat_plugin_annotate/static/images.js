/** Open images, encode them, and find the next one. */

import { get, post } from "./api.js";
import { app, messages } from "./app.js";
import { attempt, say } from "./events.js";
import { Labels } from "./labels.js";
import { lists, panel, stage } from "./main.js";
import { Raster } from "./raster.js";
import { show } from "./scene.js";
import { byId } from "./show.js";

const SETTLED_MS = 300; // an image that is only passed is not encoded

export async function open(key) {
  if (!key) return;
  const opening = ++app.opening;
  await attempt(async () => {
    const image = await get(`/api/images/${key}`);
    if (opening !== app.opening) return;
    app.raster?.close();
    app.looking?.abort();
    if (app.draft?.mask && app.image.key !== key) {
      app.drafts.set(app.image.key, app.draft);
      messages.note(`What you were drawing in ${app.image.name} is kept: it is there when you come back.`);
    }
    const [height, width] = image.size_hw;
    const draft = app.image?.key === key ? app.draft : (app.drafts.get(key) ?? null);
    app.drafts.delete(key);
    Object.assign(app, { image, labels: new Labels(image), draft, walk: null, selected: null, ready: image.ready });
    app.raster = new Raster(image, () => stage.redraw(), say, () => app.gone);
    panel.setImage(image, app.raster);
    stage.setImage(width, height);
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
    if (next) post(`/api/images/${next}/encode`, { tab: app.tab, ahead: true }).catch(() => {});
  } catch (error) {
    byId("busy").textContent = "";
    throw error;
  }
}

export async function openUnsure() {
  await attempt(async () => {
    const found = await post("/api/next", { after: app.image?.key ?? null });
    if (found.key === null) messages.note("Nothing unlabelled is left.", false, "next");
    else {
      const place = `the least sure of ${found.ranked} images looked at, of ${found.of} without labels`;
      messages.note(`${found.name}: ${place}.`, false, "next");
      await open(found.key);
    }
  }, "Looking for the image the model is least sure of …");
}

export async function setDone() {
  await attempt(() => app.labels.setDone(!app.labels.done));
}
