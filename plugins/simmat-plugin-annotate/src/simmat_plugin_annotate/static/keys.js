/** What keys and buttons do. */

import { app, classes, inTurn, show } from "./app.js";
import { attempt } from "./attempt.js";
import {
  accept, acceptAll, alternative, click, confirm, drawPolygon, drop, fillHoles, pick, polygonOfMask, redrawSelected, remove,
  removeSpecks, setTool, undo,
} from "./drawing.js";
import { follow } from "./frames.js";
import { openUnlabelled, setDone, turn } from "./images.js";
import { panel, stage, table, training, wipe } from "./parts.js";
import { byId } from "./shared/dom.js";
import { AIM_KEYS, BRUSH_KEYS, historyKey, ofKey, VIEW_KEYS } from "./shared/keys.js";
import { decide, findLike, suggest } from "./suggestions.js";
import { checkLabels, markOpen, nextSuspect, showSuspects } from "./suspects.js";

function setRadius(radius) {
  app.radius = Math.min(200, Math.max(0.5, radius));
  byId("brush").value = Math.log2(app.radius);
  byId("brush-size").title = `Brush of ${(2 * app.radius).toPrecision(3)} pixels (, and .)`;
  stage.redraw();
}

const PAN_PX = 80;
const FINE_PX = 4; // with Shift
/** What changes no label: done at once, though something is pending. */
const KEYS_AT_ONCE = {
  Escape: drop,
  l: () => panel.reset(), L: () => panel.wholeRange(), h: hide, q: () => table.toggle(), w: () => wipe.toggle(), "?": help, F1: help,
};
const KEYS = {
  Enter: accept, " ": accept, a: () => alternative(1), A: () => alternative(-1),
  c: () => setTool("click"), b: () => setTool("brush"), e: () => setTool("eraser"),
  o: drawPolygon, O: polygonOfMask, i: fillHoles, x: removeSpecks, Backspace: () => app.corners.length && undo(true),
  p: () => click(stage.view.middle, 1), m: () => click(stage.view.middle, 0),
  s: suggest, n: () => !app.draft && decide(false), r: redrawSelected, Delete: remove,
  v: confirm,
  PageDown: () => turn(1), PageUp: () => turn(-1), u: openUnlabelled, d: setDone,
  t: () => follow(1), T: () => follow(-1), k: () => findLike(false), K: () => findLike(true),
  j: nextSuspect, y: markOpen,
};
for (const [key, change] of Object.entries(VIEW_KEYS)) KEYS_AT_ONCE[key] = () => change(stage.view);
for (const [key, factor] of Object.entries(BRUSH_KEYS)) KEYS[key] = () => setRadius(app.radius * factor);
for (const [key, [x, y]] of Object.entries(AIM_KEYS)) KEYS_AT_ONCE[key] = (step) => stage.aim(x * step, y * step);

function hide() {
  app.hidden = !app.hidden;
  show();
}

function help() {
  byId("help").showModal();
  byId("help").scrollTop = 0; // the focus is on its last button
}

document.addEventListener("keydown", (event) => {
  const { target } = event;
  if (document.querySelector("dialog[open]") || !app.labels) return;
  const typing = target.matches("input, select");
  if (typing) {
    if (event.key === "Escape" || (event.key === "Enter" && target.type === "number")) stage.canvas.focus();
    return;
  }
  // [ and ] are typed with AltGr, which is Ctrl and Alt on some systems, or with Option on others.
  const bracket = ["[", "]"].includes(event.key);
  if ((event.ctrlKey || event.metaKey) && !bracket) {
    const step = historyKey(event);
    if (!step) return;
    event.preventDefault();
    inTurn(() => undo(step === "undo"));
    return;
  }
  if (event.altKey && !bracket) return;
  if (target.matches("button, a, summary") && [" ", "Enter"].includes(event.key)) return; // presses it
  if (/^[0-9]$/.test(event.key)) {
    const id = event.key === "0" ? null : (classes()[Number(event.key) - 1]?.id ?? -1);
    inTurn(() => pick(id));
    return;
  }
  if (event.key === "Enter" && event.shiftKey) {
    inTurn(acceptAll);
    return;
  }
  const atOnce = ofKey(KEYS_AT_ONCE, event.key);
  const action = atOnce ?? ofKey(KEYS, event.key);
  if (!action) return;
  event.preventDefault();
  if (event.repeat && !/Arrow|[[\],.+=-]/.test(event.key)) return;
  if (atOnce) atOnce(event.shiftKey ? FINE_PX : PAN_PX);
  else inTurn(action);
  stage.redraw();
});

const BUTTONS = {
  previous: () => turn(-1), following: () => turn(1), unlabelled: openUnlabelled, done: setDone,
  "tool-click": () => setTool("click"), "tool-brush": () => setTool("brush"), "tool-eraser": () => setTool("eraser"),
  "tool-polygon": drawPolygon, "fill-holes": fillHoles, "remove-specks": removeSpecks,
  suggest, undo: () => undo(true), redo: () => undo(false), "help-button": help, hide, measure: () => table.toggle(), redraw: redrawSelected,
  delete: remove, outline: polygonOfMask, follow: () => follow(1), like: () => findLike(false),
  confirm,
};
for (const [id, action] of Object.entries(BUTTONS)) {
  byId(id).addEventListener("click", () => {
    if (!app.labels) return;
    stage.canvas.focus({ preventScroll: true }); // so that the keys that follow are of the image
    inTurn(action);
  });
}
document.addEventListener("click", ({ target, detail }) => {
  // The keys that follow are of the image; who chooses with the keyboard stays in the list of classes or objects.
  if (target.closest("#images button") || (detail > 0 && target.closest("#classes button, #objects button, .tabs button, #suspect-list button"))) {
    stage.canvas.focus({ preventScroll: true });
  }
}, { capture: true }); // before the row makes way for a new one
byId("brush").addEventListener("input", ({ target }) => setRadius(2 ** Number(target.value)));
byId("opacity").addEventListener("input", ({ target }) => {
  app.opacity = Number(target.value);
  stage.redraw();
});
for (const id of ["brush", "opacity"]) byId(id).addEventListener("pointerup", () => stage.canvas.focus({ preventScroll: true }));
byId("list-images").addEventListener("click", () => showSuspects(false));
byId("list-suspects").addEventListener("click", () => showSuspects(true));
byId("check-labels").addEventListener("click", checkLabels);
byId("train").addEventListener("click", () => {
  stage.canvas.focus({ preventScroll: true }); // Enter is of the image again: it would end the training
  attempt(() => training.toggle());
});
window.addEventListener("beforeunload", (event) => {
  if (app.draft?.mask || app.drafts.size) event.preventDefault(); // a mask that was not accepted would be lost
});
