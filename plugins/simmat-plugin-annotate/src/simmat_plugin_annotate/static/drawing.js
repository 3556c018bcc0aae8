/** Draw objects, change those that are there, and save them. */

import { app, classes, classNow, holdTurn, inside, messages, show, suggestion } from "./app.js";
import { attempt } from "./attempt.js";
import { Draft, staysLow } from "./draft.js";
import { acceptFrame, acceptFrames, running, stopFollowing } from "./frames.js";
import { stage } from "./parts.js";
import { runsOf } from "./runs.js";
import { cornersOf, insertCorner, nearestCorner, polygonMask, united, withoutHoles, withoutSpecks } from "./shapes.js";
import { byId } from "./shared/dom.js";
import { trimmed } from "./shared/masks.js";
import { acceptRest, decide, step, undoDecision } from "./suggestions.js";

export function setTool(tool) {
  app.tool = tool;
  app.corners = [];
  show();
}

function sizeOf({ width, height }) {
  return { width, height };
}

function newDraft(options = {}) {
  app.draft = new Draft(app.image.key, sizeOf(app.raster), options);
  return app.draft;
}

/** What a click at an image position means to the tool. */
export function click(at, label) {
  if (app.tool === "polygon") corner(at, label);
  else if (inside(at)) prompt((draft) => draft.addPoint(at, label));
}

async function prompt(ask) {
  if (!app.draft) {
    // A click while suggestions are looked at corrects the one that is shown.
    newDraft(app.walk ? { point: suggestion().point } : {});
    app.selected = null;
  }
  const { draft } = app;
  const asked = performance.now();
  if ((await attempt(async () => {
    const answered = ask(draft);
    show();
    return answered;
  })) && !draft.waiting) {
    app.ready = true;
    await new Promise(requestAnimationFrame); // drawn
    document.body.dataset.clickMs = String(performance.now() - asked);
    byId("busy").textContent = `Mask in ${Math.round(performance.now() - asked)} ms`;
  }
}

export function boxed([x0, y0, x1, y1]) {
  const { width, height } = app.raster;
  const box = [Math.max(0, x0), Math.max(0, y0), Math.min(width, x1), Math.min(height, y1)];
  if (box[2] - box[0] >= 1 && box[3] - box[1] >= 1) prompt((draft) => draft.setBox(box));
}

/** The drawn object, or else one that begins with the mask of what is selected or suggested. */
function draftToPaint() {
  if (!app.draft && app.selected !== null) editSelected();
  return app.draft ?? newDraft(app.walk ? { mask: suggestion().mask, predicted: true } : {});
}

export function beginStroke() {
  if (app.raster) draftToPaint().beginStroke();
}

/** Add a corner of a polygon (label 1) at an image position, or take the last one back (label 0). */
function corner(at, label) {
  const { corners } = app;
  if (corners.length && app.closed) {
    if (label) insertCorner(corners, at);
    else if (corners.length > 3) corners.splice(at ? nearestCorner(corners, at) : -1, 1);
    show();
    return;
  }
  app.closed = false;
  if (label === 0) corners.pop();
  else if (corners.length > 2 && stage.isAt(at, corners[0])) closePolygon();
  else if (!corners.length || !stage.isAt(at, corners.at(-1))) corners.push(at);
  show();
}

/** Take up the polygon, in place of the model's mask where that stays poor. */
export function drawPolygon() {
  if (app.draft && staysLow(app.draft)) app.draft.clear();
  setTool("polygon");
}

/** Turn the drawn, suggested or selected mask into a polygon to correct. */
export function polygonOfMask() {
  const mask = maskToChange();
  if (!mask) {
    messages.note("Click, draw or select an object first: Shift+O then makes a polygon of its mask.", false, "polygon");
    return;
  }
  setTool("polygon");
  app.corners = cornersOf(mask);
  app.traced = [...app.corners];
  app.closed = true;
  show();
}

/** Add the pixels of the polygon to the drawn object, or replace it by a corrected outline; returns whether there is a polygon. */
function closePolygon() {
  const { corners, raster } = app;
  if (!corners.length) return false;
  const mask = corners.length > 2 ? polygonMask(corners, raster) : null;
  if (mask) {
    const draft = draftToPaint();
    if (app.closed) draft.paint(mask, draft.state.predicted && isAsTraced());
    else draft.paint(united(draft.mask, mask));
    app.corners = [];
  } else messages.note("A polygon needs three corners, and a pixel inside.", false, "polygon");
  show();
  return true;
}

/** Whether no corner of the outline of a mask was moved, added or taken away. */
function isAsTraced() {
  const { corners, traced } = app;
  return corners.length === traced.length && corners.every((corner, i) => corner === traced[i]);
}

export const fillHoles = () => clean(withoutHoles, "There is no hole in it.");
export const removeSpecks = () => clean(withoutSpecks, "There is no part in it that is much smaller than the largest.");

/** The mask of the drawn, suggested or selected object, or null. */
function maskToChange() {
  if (app.draft) return app.draft.mask;
  const shown = suggestion() ?? app.labels.objects.get(app.selected);
  return shown?.mask ?? null;
}

/** Change the mask of the drawn, suggested or selected object; say where that changes nothing. */
function clean(change, nothing) {
  const mask = maskToChange();
  if (!mask) return;
  const cleaned = change(mask);
  if (cleaned.area === mask.area) messages.note(nothing, false, "clean");
  else {
    const draft = draftToPaint();
    draft.paint(cleaned, draft.state.predicted);
  }
  show();
}

function editSelected() {
  const object = app.labels.objects.get(app.selected);
  newDraft({ replaces: object.id, mask: object.mask, objectClass: object.class, predicted: object.predicted });
}

export function redrawSelected() {
  if (app.selected === null || app.draft) return;
  const object = app.labels.objects.get(app.selected);
  newDraft({ replaces: object.id, objectClass: object.class });
  setTool("click");
  byId("prompt").textContent = "Click it or draw a box; Enter replaces the object, Esc leaves it.";
}

export async function accept() {
  if (closePolygon()) return;
  const { draft, walk } = app;
  if (!draft) {
    if (walk) await decide(true);
    else await acceptFrame();
    return;
  }
  await holdTurn(() => acceptDraft(draft, walk));
}

export async function acceptAll() {
  const { walk } = app;
  if (!walk) return (!app.draft && (await acceptFrames())) || accept();
  await holdTurn(() => acceptRest(walk));
}

async function acceptDraft(draft, walk) {
  await draft.pending.catch(() => {});
  const mask = draft.mask && trimmed(draft.mask);
  if (app.draft !== draft) return;
  if (!mask) {
    messages.note(draft.replaces === null
      ? "There is no mask to accept."
      : "There is no mask to accept. Esc and then Delete removes the object.");
    return;
  }
  const chosen = classNow();
  // Painted pixels are meant: they go to this object. A model's mask leaves others what is theirs.
  const overlap = draft.state.painted ? "take" : "keep";
  const { predicted } = draft.state;
  const edits = draft.replaces !== null && app.labels.objects.has(draft.replaces)
    ? [{ op: "replace", id: draft.replaces, mask: runsOf(mask), overlap, predicted }]
    : [{ op: "add", id: draft.track, mask: runsOf(mask), class: chosen, overlap, predicted }];
  const before = app.labels.objects.get(draft.replaces);
  if (before && before.class !== chosen) edits.push({ op: "class", id: before.id, class: chosen });
  await attempt(async () => {
    await app.labels.edit(...edits);
    if (app.draft !== draft) return;
    app.draft = null;
    if (walk && app.walk === walk) step(walk, "accepted");
  });
}

export function drop() {
  if (!app.corners.length && !app.draft) app.suspect = null;
  if (app.corners.length) app.corners = [];
  else if (app.draft) app.draft = null;
  else if (app.walk) app.walk = null;
  else if (running()) stopFollowing();
  else app.selected = null;
  show();
}

export function pick(id) {
  const known = id === null || classes().some((item) => item.id === id);
  if (!known) return;
  const { draft, walk } = app;
  if (!draft && !walk && app.selected !== null) {
    holdTurn(() => attempt(() => app.labels.edit({ op: "class", id: app.selected, class: id })));
  } else if (!draft && walk) suggestion().class = id;
  else {
    app.activeClass = id;
    app.choices += 1;
    if (draft && (draft.objectClass !== undefined || walk)) draft.objectClass = id;
  }
  show();
}

export function select(id) {
  if (app.draft) return;
  app.selected = app.selected === id ? null : id;
  if (app.selected !== null) {
    app.walk = null;
    stage.view.reveal(app.labels.objects.get(id).mask);
  }
  show();
}

/** Select an object and show it in the middle. */
export function selectAndCentre(id) {
  if (app.draft) return;
  const { mask } = app.labels.objects.get(id);
  app.selected = id;
  app.walk = null;
  stage.view.reveal(mask);
  stage.view.centreBox(mask);
  show();
}

/** Draw an object of other frames in this one. */
export function drawTrack(id, objectClass) {
  if (app.draft) return;
  app.selected = null;
  newDraft({ track: id, objectClass });
  setTool("click");
  byId("prompt").textContent = `Click object ${id} or draw a box; Enter adds it to this frame, Esc leaves it.`;
}

export async function remove() {
  const { selected } = app;
  if (selected === null || app.draft) return;
  app.selected = null;
  await holdTurn(() => attempt(() => app.labels.edit({ op: "remove", id: selected })));
}

/** Take what a model found, the selected object or all of the image, as if the user had drawn it. */
export async function confirm() {
  const { selected, draft, walk, labels } = app;
  if (draft || walk) {
    messages.note("First accept what is shown: Enter. Then V confirms it.", false, "confirm");
    return;
  }
  const ids = selected === null ? [] : [selected];
  const meant = selected === null ? [...labels.objects.values()] : [labels.objects.get(selected)];
  if (!meant.some((object) => object.predicted)) {
    messages.note("Nothing to confirm: a person has drawn or confirmed this.", false, "confirm");
    return;
  }
  await holdTurn(() => attempt(() => labels.edit({ op: "confirm", ids })));
}

export async function undo(back) {
  const { draft, walk } = app;
  if (app.corners.length) {
    if (back) corner(null, 0);
    return;
  }
  if (draft && (back ? draft.undo() : draft.redo())) {
    show();
    return;
  }
  if (draft && (!draft.empty || draft.replaces !== null || draft.track !== null)) return;
  app.draft = null;
  if (back && walk?.past.length && !(await holdTurn(() => undoDecision(walk)))) return;
  if (!back || !walk) {
    if (!(back ? app.labels.undo : app.labels.redo)) return;
    await holdTurn(() => attempt(() => app.labels.step(back ? "undo" : "redo")));
  }
  show();
}

export function alternative(by) {
  app.draft?.alternative(by);
  show();
}
