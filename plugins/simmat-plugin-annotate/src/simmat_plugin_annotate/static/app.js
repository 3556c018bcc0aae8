/** The state of the page, and what is asked of it. */

import { colourOfNumber, rgbOf, WITHOUT_CLASS } from "./shared/colours.js";
import { byId } from "./shared/dom.js";
import { Messages } from "./shared/messages.js";

export const messages = new Messages(byId("messages"), (name) => (name === "close" ? "×" : null));

/** Everything that changes. */
export const app = {
  session: null,
  image: null, // the server's document of the open image
  labels: null,
  raster: null,
  draft: null,
  drafts: new Map(), // of images that were left before theirs was accepted or dropped, by key
  walk: null, // {items, at, past} of suggestions; `suspect` if it is an object that may lack a label
  selected: null,
  suspect: null, // the suspected label that is looked at, with the masks of what the model sees
  tool: "click",
  radius: 6,
  corners: [], // places {x, y} of the polygon that is being drawn
  closed: false, // whether these are a whole outline, whose corners are corrected
  traced: [], // the corners of that outline before they were corrected
  opacity: 0.4, // of the masks
  activeClass: undefined, // not chosen yet
  choices: 0, // how often the user has chosen a class
  pending: null, // Promise of what the next key or click waits for
  looking: null, // AbortController while suggestions are being computed
  hidden: false,
  ready: false,
  opening: 0,
  cursor: null,
  tab: crypto.getRandomValues(new Uint32Array(4)).join("-"), // stands for this tab at the server
  gone: false,
  watching: false, // whether each frame is opened when it was filled
  like: null, // {key, objects} of what is looked for in other images; no objects: all of that image
};

/** What the page does when its state has changed, and when the server is gone; `main.js` sets both. */
export const listeners = { changed() {}, gone() {} };

/** Show the state as it is now. */
export function show() {
  listeners.changed();
}

export function classes() {
  return app.session.classes;
}

export function colourOfObject({ id, class: known }) {
  return known === null && !classes().length ? rgbOf(colourOfNumber(id)) : colourOf(known);
}

export function colourOf(id) {
  return rgbOf(classes().find((known) => known.id === id)?.colour ?? WITHOUT_CLASS);
}

/** Let the keys and clicks that come meanwhile wait for some work, such as saving. */
export function holdTurn(work) {
  const pending = work().finally(() => {
    if (app.pending === pending) app.pending = null;
  });
  app.pending = pending;
  return pending;
}

/** Do what a key or a click asks for after what is pending; at once where nothing is. */
export async function inTurn(action) {
  while (app.pending) await app.pending.catch(() => {});
  return action();
}

export function suggestion() {
  return app.walk?.items[app.walk.at] ?? null;
}

/** The class of new objects; null: none, or the one that the model says. */
export function activeClass() {
  if (app.activeClass !== undefined) return app.activeClass;
  return app.session.model.knows_classes ? null : (classes()[0]?.id ?? null);
}

/** Class that the drawn object would get. */
export function classNow() {
  const { draft } = app;
  if (draft && draft.objectClass !== undefined) return draft.objectClass;
  const current = suggestion();
  if (current) return current.class ?? activeClass();
  return activeClass() ?? draft?.answer?.class ?? null;
}

export function inside({ x, y }) {
  return app.raster !== null && x >= 0 && y >= 0 && x < app.raster.width && y < app.raster.height;
}
