/** What is asked of the server may fail: failures become messages. */

import { app, listeners, messages, show } from "./app.js";
import { byId } from "./shared/dom.js";

export function say(error) {
  if (error.name === "AbortError") return;
  if (error.code === "gone" || error.code === "restarted") {
    listeners.gone();
    return;
  }
  if (error.code === "stale") {
    messages.bad("Another tab or program changed this image. Its labels were loaded again; nothing of it was lost. " +
      (app.draft ? "What you are drawing is kept: Enter accepts it." : "Do it again if it is still needed."), "stale");
  } else messages.bad(error.message);
}

/** Run something of the server; failures become messages. Returns whether it worked. */
export async function attempt(action, busy = "") {
  if (busy) byId("busy").textContent = busy;
  try {
    await action();
    return true;
  } catch (error) {
    if (!error.code && error.name !== "AbortError") console.error(error);
    say(error);
    return false;
  } finally {
    if (busy && byId("busy").textContent === busy) byId("busy").textContent = "";
    if (app.labels) show();
  }
}
