/** Short messages over the image. */

import { byId, element } from "shared/dom.js";
import { icon } from "./dom";

const NOTE_MS = 7000;
const MOST = 4; // at once

const shown = new Map<string, HTMLElement>();

/** Say something that goes by itself. */
export function note(text: string): void {
  const message = add(text, "note");
  setTimeout(() => {
    if (shown.get(text) === message) remove(text);
  }, NOTE_MS);
}

/** Say what failed; it stays until it is closed. */
export function complain(error: unknown): void {
  const text = error instanceof Error ? error.message : String(error);
  add(text || "Something failed, and the browser does not say what.", "error");
}

/** Take away what was said, since something else begins. */
export function clearMessages(): void {
  for (const text of [...shown.keys()]) remove(text);
}

function add(text: string, kind: "note" | "error"): HTMLElement {
  remove(text);
  const close = element("button", { class: "quiet-button", "aria-label": "Close", onclick: () => remove(text) }, icon("close"));
  const message = element("div", { class: `message ${kind}`, role: kind === "error" ? "alert" : "status" });
  message.append(icon(kind === "error" ? "warning" : "info"), element("p", {}, text), close);
  byId("messages").append(message);
  shown.set(text, message);
  for (const oldest of [...shown.keys()].slice(0, -MOST)) remove(oldest);
  return message;
}

function remove(text: string): void {
  shown.get(text)?.remove();
  shown.delete(text);
}
