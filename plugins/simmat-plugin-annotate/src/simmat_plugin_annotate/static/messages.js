/** Short messages over the image. */

import { element } from "./shared/dom.js";

const NOTE_MS = 7000;
const MOST = 4; // messages at once

export class Messages {
  constructor(place) {
    this.place = place;
    this.shown = new Map();
    this.passing = new Set(); // kinds of those that go by themselves
  }

  /** Remove what was said of an image that is left; other errors and what is to stay are kept. */
  clearOfImage() {
    for (const kind of [...this.passing, "stale"]) this.clear(kind);
  }

  /** Say something; it goes by itself unless it is to `stay`. One message of a `kind` at a time. */
  note(text, stay = false, kind = text) {
    const message = this.#add(text, "message", kind);
    if (stay) return;
    this.passing.add(kind);
    setTimeout(() => this.shown.get(kind) === message && this.clear(kind), NOTE_MS);
  }

  /** Say what failed; it stays until it is closed. One message of a `kind` at a time. */
  bad(text, kind = text) {
    this.#add(text, "message bad", kind);
  }

  clear(kind) {
    this.shown.get(kind)?.remove();
    this.shown.delete(kind);
    this.passing.delete(kind);
  }

  #add(text, className, kind) {
    this.clear(kind);
    const message = element("div", { class: className }, element("span", {}, text));
    message.append(element("button", { "aria-label": "Close", onclick: () => this.clear(kind) }, "×"));
    this.place.append(message);
    this.shown.set(kind, message);
    const old = [...this.shown.keys()].filter((shown) => shown !== "gone"); // which stays until the server is back
    for (const shown of old.slice(0, -MOST)) this.clear(shown);
    return message;
  }
}
