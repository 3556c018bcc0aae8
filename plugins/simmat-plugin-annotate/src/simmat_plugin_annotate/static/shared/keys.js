/** Keys that mean the same on both pages. */

/** @import { View } from "./view.js" */

/** What keys do to the view. @type {Readonly<Record<string, (view: View) => void>>} */
export const VIEW_KEYS = {
  f: (view) => view.fit(),
  g: (view) => view.zoomToPixels(),
  "+": (view) => view.zoomBy(1.25),
  "=": (view) => view.zoomBy(1.25),
  "-": (view) => view.zoomBy(1 / 1.25),
};

/** How the image moves under the cross, in steps. @type {Readonly<Record<string, readonly [number, number]>>} */
export const AIM_KEYS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/** By how much keys make the brush larger. @type {Readonly<Record<string, number>>} */
export const BRUSH_KEYS = { ",": 1 / 1.25, ".": 1.25, "[": 1 / 1.25, "]": 1.25 };

/**
 * What a key pressed with Ctrl or the command key asks for.
 * @param {KeyboardEvent} event
 * @returns {"undo" | "redo" | null}
 */
export function historyKey({ key, shiftKey }) {
  if (key.toLowerCase() === "y") return "redo";
  if (key.toLowerCase() !== "z") return null;
  return shiftKey ? "redo" : "undo";
}

/**
 * What a table has for a key, in the case as it is typed or else the small one.
 * @template Action
 * @param {Readonly<Record<string, Action>>} actions
 * @param {string} key
 * @returns {Action | undefined}
 */
export function ofKey(actions, key) {
  return actions[key] ?? actions[key.toLowerCase()];
}
