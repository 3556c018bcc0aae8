/** Labels that a training contradicts which did not learn from their image: their list, and one of them in the image. */

import { get, post } from "./api.js";
import { app, classes, inTurn, messages, show } from "./app.js";
import { attempt } from "./attempt.js";
import { open } from "./images.js";
import { replaceRows } from "./lists.js";
import { lists, stage } from "./parts.js";
import { maskOfRuns } from "./runs.js";
import { byId, element, revealIn, setPressed } from "./shared/dom.js";

const KINDS = { missed: "No label?", border: "Another border?", merged: "Two in one?" };
const SCORE = "Share of errors among suspicions like this one, if one label in twenty is wrong";

let last = { images: 0, keys: [], suspects: [] }; // the last check, as the server knows it
let at = 0; // place in the list of the suspect that was opened last

/** Show the list of suspected labels, or that of the images. */
export function showSuspects(shown) {
  byId("image-list").hidden = shown;
  byId("suspect-list").hidden = !shown;
  setPressed(byId("list-images"), !shown);
  setPressed(byId("list-suspects"), shown);
}

function running() {
  return app.session.check.state === "running";
}

/** Start a check of all labels, or stop the one that runs. */
export async function checkLabels() {
  const action = running() ? "stop" : "check";
  await attempt(() => post(`/api/suspects/${action}`, {})); // its events say how far it is
}

/** Show how far a check is; if none runs, load the list, as one has ended or a label was found to be right. */
export function showCheck(state) {
  if (running() && state.state === "failed") messages.bad(`The labels were not checked: ${state.message}`, "check");
  app.session.check = state;
  if (running()) showText();
  else attempt(loadSuspects);
}

export async function loadSuspects() {
  last = await get("/api/suspects");
  const known = last.suspects.find((one) => one.id === app.suspect?.id);
  app.suspect = known ? { ...app.suspect, ...known } : null;
  if (!known && app.walk?.suspect) app.walk = null;
  showText();
  replaceRows(byId("suspects"), last.suspects.map(row));
  if (app.labels) show();
}

/** Load the list again after an image has changed of which labels were suspected. */
export function suspectsChanged(key) {
  if (last.keys.includes(key)) attempt(loadSuspects);
}

function showText() {
  const { done, images: all } = app.session.check;
  const { suspects, images, labels, unchecked, left_out: leftOut = [] } = last;
  byId("check-labels").textContent = running() ? "Stop" : images ? "Check again" : "Check all labels";
  const bar = byId("check-progress");
  bar.hidden = !running();
  if (running() && all) bar.value = done / all;
  else bar.removeAttribute("value");
  const left = suspects.filter((one) => !one.right).length;
  byId("list-suspects").textContent = left ? `Suspected ${left}` : "Suspected";
  const words = [];
  if (running()) words.push(all ? `${done} of ${all} images` : "Reading the trainings and the labels");
  else if (!images) words.push("Finds labels that contradict a training which did not learn from their image");
  else {
    words.push(`${left || "No"} suspect${left === 1 ? "" : "s"} left among ${labels} labels in ${images} images`);
    if (unchecked) words.push(`${unchecked} images were not checked, as every training learned from them`);
    for (const reason of leftOut) words.push(`Not used: ${reason}`);
  }
  byId("check-text").textContent = `${words.join(". ")}.`;
}

function className(id) {
  return classes().find((one) => one.id === id)?.name ?? `class ${id}`;
}

function what({ kind, class_id: id, seen_class: seen }) {
  if (kind === "class") return `${className(id)}, or ${className(seen)}?`;
  return KINDS[kind];
}

function row(suspect, i) {
  const name = lists.find(suspect.key)?.name ?? "";
  const button = element(
    "button",
    { title: `${what(suspect)}, in ${name}. ${suspect.score.toFixed(2)}: ${SCORE}`, onclick: () => inTurn(() => openSuspect(i)) },
    element("span", { class: "label" }, what(suspect), element("small", {}, name)),
    element("span", { class: "state" }, suspect.score.toFixed(2)),
  );
  button.dataset.row = suspect.id;
  if (suspect.id === app.suspect?.id) button.setAttribute("aria-current", "true");
  const right = element("button", { class: "quiet", title: "The label is right (Y)", onclick: () => inTurn(() => mark(suspect)) }, "✓");
  right.setAttribute("aria-label", `The label is right: ${what(suspect)}, in ${name}`);
  setPressed(right, suspect.right);
  return element("li", { class: suspect.right ? "row right" : "row" }, button, right);
}

/** Open the image of a suspect at its place, with what the model sees there. */
async function openSuspect(i) {
  const suspect = last.suspects[i];
  if (app.draft) {
    messages.note("What you are drawing is not saved yet: Enter accepts it, Esc drops it.", false, "suspect");
    return;
  }
  at = i;
  if (app.image.key !== suspect.key) await open(suspect.key);
  if (app.image.key !== suspect.key) return; // it cannot be read
  const masks = suspect.seen.map(maskOfRuns);
  app.suspect = { ...suspect, masks };
  app.selected = suspect.object;
  app.walk = null;
  if (suspect.object === null) {
    const [mask] = masks;
    const known = classes().some((one) => one.id === suspect.seen_class) ? suspect.seen_class : null;
    app.walk = { items: [{ mask, score: suspect.score, class: known, point: middleOf(mask) }], at: 0, past: [], suspect: true };
  }
  stage.view.reveal(maskOfRuns(suspect.place));
  markRow();
  show();
}

/** A pixel in the middle of a mask, as the server counts: [x, y]. */
function middleOf({ x, y, width, inside, area }) {
  let left = Math.ceil(area / 2);
  const at = inside.findIndex((pixel) => pixel && --left <= 0);
  return [x + (at % width), y + Math.floor(at / width)];
}

function markRow() {
  for (const button of byId("suspects").querySelectorAll("button[data-row]")) {
    const chosen = button.dataset.row === app.suspect?.id;
    if (chosen) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    if (chosen) revealIn(byId("suspects"), button.parentElement);
  }
}

/** Open the next suspect of which nobody has said yet that its label is right. */
export async function nextSuspect() {
  const current = last.suspects.findIndex((one) => one.id === app.suspect?.id);
  const from = current < 0 ? at : current + 1;
  showSuspects(true);
  const left = [...last.suspects.keys()].filter((i) => !last.suspects[i].right && i !== current);
  if (!left.length) {
    messages.note(last.images ? "No other label is suspected." : "The labels were not checked yet.", false, "suspect");
    return;
  }
  await openSuspect(left.find((i) => i >= from) ?? left[0]);
}

async function mark(suspect) {
  await attempt(async () => {
    await post("/api/suspects/right", { id: suspect.id, right: !suspect.right });
    await loadSuspects();
  });
}

/** Say that the label of the open suspect is right, and open the next one. */
export async function markOpen() {
  const { suspect } = app;
  if (!suspect) {
    messages.note("Y says of a suspected label that it is right: J opens one.", false, "suspect");
    return;
  }
  if (!suspect.right) await mark(suspect);
  await nextSuspect();
}

/** What to do about the suspect that is open; "" if none is. */
export function suspectText() {
  const { suspect, walk } = app;
  const isShown = walk ? walk.suspect : app.selected !== null && app.selected === suspect?.object;
  if (!suspect || !isShown) return "";
  const asks = {
    missed: "An object without a label? Enter adds it",
    class: `Labelled ${className(suspect.class_id)}, the model sees ${className(suspect.seen_class)}. A number changes the class`,
    border: "A border beside the object? Dashed: what the model sees. Correct it with B, E or R",
    merged: "Two objects in one label? Dashed: what the model sees. Correct it with B, E or Delete",
  };
  return `${asks[suspect.kind]}. Y: it is right. J: the next one.`;
}
