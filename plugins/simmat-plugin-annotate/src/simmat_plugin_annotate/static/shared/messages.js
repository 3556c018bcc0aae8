/** Short messages over the image. */

import { element } from "./dom.js";

const NOTE_MS = 7000;
const MOST = 4; // messages at once
const GONE = "gone"; // the kind of a message that stays until the server is back

export class Messages {
  /** @type {Map<string, HTMLElement>} */
  #shown = new Map();
  /** Kinds of those that go by themselves. @type {Set<string>} */
  #passing = new Set();

  /**
   * @param {HTMLElement} place
   * @param {(name: "close" | "info" | "warning") => Node | string | null} icon
   */
  constructor(place, icon) {
    this.place = place;
    this.icon = icon;
  }

  /**
   * Say something; it goes by itself unless it is to stay. One message of a kind at a time.
   * @param {string} text
   */
  note(text, stay = false, kind = text) {
    const message = this.#add(text, kind, "message note", "status");
    message.prepend(this.icon("info") ?? "");
    if (stay) return;
    this.#passing.add(kind);
    setTimeout(() => this.#shown.get(kind) === message && this.clear(kind), NOTE_MS);
  }

  /**
   * Say what failed; it stays until it is closed. One message of a kind at a time.
   * @param {string} text
   */
  bad(text, kind = text) {
    const message = this.#add(text || "Something failed, and the browser does not say what.", kind, "message bad", "alert");
    message.prepend(this.icon("warning") ?? "");
  }

  /** @param {string} kind */
  clear(kind) {
    this.#shown.get(kind)?.remove();
    this.#shown.delete(kind);
    this.#passing.delete(kind);
  }

  /** Remove what goes by itself, and the messages of some other kinds. */
  clearPassing(/** @type {string[]} */ ...kinds) {
    for (const kind of [...this.#passing, ...kinds]) this.clear(kind);
  }

  clearAll() {
    for (const kind of [...this.#shown.keys()]) this.clear(kind);
  }

  /**
   * @param {string} text
   * @param {string} kind
   * @param {string} className
   * @param {string} role
   */
  #add(text, kind, className, role) {
    this.clear(kind);
    const close = element("button", { class: "quiet-button", "aria-label": "Close", onclick: () => this.clear(kind) }, this.icon("close"));
    const message = element("div", { class: className, role }, element("p", {}, text), close);
    this.place.append(message);
    this.#shown.set(kind, message);
    const old = [...this.#shown.keys()].filter((shown) => shown !== GONE);
    for (const shown of old.slice(0, -MOST)) this.clear(shown);
    return message;
  }
}
