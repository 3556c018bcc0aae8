/** What the server tells: its events, its end, and its coming back. */

import { get } from "./api.js";
import { app, messages, show } from "./app.js";
import { attempt } from "./attempt.js";
import { loadForecast } from "./forecast.js";
import { showFollowing, showFrames } from "./frames.js";
import { encode } from "./images.js";
import { lists, training } from "./parts.js";
import { byId } from "./shared/dom.js";
import { loadSuspects, showCheck, suspectsChanged } from "./suspects.js";

export function gone() {
  if (app.gone) return;
  app.gone = true;
  messages.bad("The server does not answer. Accepted objects are on disk; what you are drawing is kept here. " +
    "Start `simmat annotate` again with the same port: this page continues by itself.", "gone");
  if (app.labels) show();
  retry();
}

async function retry() {
  while (app.gone) {
    await new Promise((resolve) => setTimeout(resolve, 1500));
    try {
      await back();
    } catch (error) {
      if (error.code === "token") {
        messages.bad("The server was started again: open the address that it printed, in another tab. " +
          "This page then continues with what it has.", "gone");
      }
    }
  }
}

/** The server answers again, perhaps another one: read everything, keep what is being drawn. */
async function back() {
  const session = await get("/api/session");
  if (session.folder !== app.session.folder) {
    if (!app.gone) retry(app.gone = true);
    messages.bad(`Another folder is served here now: ${session.folder}. What you are drawing is of ` +
      `${app.session.folder} and cannot be saved here. Reload the page to go on with the other folder.`, "gone");
    show();
    return;
  }
  app.session = session;
  app.gone = false;
  messages.clear("gone");
  await load();
  if (app.labels) {
    app.ready = false;
    await app.labels.refresh();
    messages.note("The server is back; the labels were read again.");
    show();
    await encode();
  }
}

export const EVENTS = {
  hello: ({ session }) => {
    if (session !== app.session.session) attempt(back);
  },
  gone,
  image: ({ key, version, follow: followed, ...state }) => {
    lists.update(key, state);
    suspectsChanged(key);
    showFrames();
    if (key !== app.image?.key) return;
    attempt(async () => {
      const changed = await app.labels.refresh(version);
      if (changed && !followed) messages.note("Another tab changed this image: its labels were loaded again.");
    });
  },
  training: (state) => {
    if (training.show(state)) attempt(loadForecast); // it has ended
  },
  check: showCheck,
  follow: showFollowing,
  model: (model) => {
    app.session.model = model;
    app.ready = false;
    training.showModel(model);
    const words = [model.path, app.session.folder].map((path) => (/[^\w./:\\-]/.test(path) ? `"${path}"` : path));
    messages.note("The new model is better on validation and is used from now on.\n" +
      `For all images: simmat predict ${words.join(" ")} --everything --out OUT`, true, "model");
    if (app.image) attempt(encode);
  },
  classes: ({ classes: now }) => {
    app.session.classes = now;
    if (app.labels) show();
  },
};

export async function load() {
  lists.setImages((await get("/api/images")).images);
  training.show(app.session.training);
  training.showModel(app.session.model);
  attempt(loadSuspects);
  attempt(loadForecast);
}
