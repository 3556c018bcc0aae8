/** The annotator's page: what the keys, buttons and events do. */

import { download, get, listen, post, server } from "./api.js";
import { colourOfNumber, NO_CLASS, rgbOf, setMaps } from "./colours.js";
import { DisplayPanel } from "./display.js";
import { Draft } from "./draft.js";
import { Labels } from "./labels.js";
import { Lists } from "./lists.js";
import { Mask } from "./masks.js";
import { Raster } from "./raster.js";
import { byId, clock, press, shownValue } from "./show.js";
import { Stage } from "./stage.js";
import { Messages, TrainingPanel } from "./training.js";

const messages = new Messages(byId("messages"));

/** Everything that changes. */
export const app = {
  session: null,
  image: null, // the server's document of the open image
  labels: null,
  raster: null,
  draft: null,
  drafts: new Map(), // of images that were left before theirs was accepted or dropped, by key
  walk: null, // {items, at, past} of suggestions
  selected: null,
  tool: "click",
  radius: 6,
  activeClass: undefined, // not chosen yet
  choices: 0, // how often the user has chosen a class
  looking: null, // AbortController while suggestions are being computed
  hidden: false,
  ready: false,
  opening: 0,
  cursor: null,
  tab: crypto.getRandomValues(new Uint32Array(4)).join("-"), // stands for this tab at the server
  gone: false,
};

const panel = new DisplayPanel(() => stage?.redraw());
export const stage = new Stage(byId("canvas"), scene, {
  click: (at, label) => inside(at) && prompt((draft) => draft.addPoint(at, label)),
  box: (box) => boxed(box),
  beginStroke: () => beginStroke(),
  stroke: (from, to, paints) => {
    app.draft?.stroke(from, to, app.radius, paints ? 1 : 0);
    stage.redraw();
  },
  endStroke: () => show(),
  select: ([x, y]) => select(app.labels?.at(x, y)?.id ?? null),
  level: (narrower, lower) => panel.drag(narrower, lower),
  hover: (at) => {
    app.cursor = at;
    showValue();
  },
  seen: (missing) => {
    document.body.dataset.missing = String(missing);
    panel.tilesCame();
    showValue();
  },
});
export const lists = new Lists(app, { open, select, pick, rename });
const training = new TrainingPanel(messages);

// ---- what is drawn

const WHITE = [255, 255, 255];

function scene() {
  if (!app.raster) return null;
  const shapes = [];
  const shown = app.hidden ? [] : app.labels.objects.values();
  for (const object of shown) {
    if (object.id === app.draft?.replaces) continue;
    const chosen = object.id === app.selected;
    shapes.push({ mask: object.mask, colour: colourOfObject(object), alpha: chosen ? 0.5 : 0.3, line: chosen ? 3 : 1.5 });
  }
  const current = suggestion();
  if (app.walk) {
    for (const [i, item] of app.walk.items.entries()) {
      if (i > app.walk.at) shapes.push({ mask: item.mask, colour: WHITE, alpha: 0, line: 1, dash: [3, 3] });
    }
  }
  const drawn = app.draft ? app.draft.mask : current?.mask;
  if (drawn) shapes.push({ mask: drawn, colour: colourOf(classNow()), outline: WHITE, alpha: 0.5, line: 2, dash: [6, 4] });
  return {
    raster: app.raster,
    display: panel.display,
    shapes,
    points: app.draft?.state.points ?? [],
    box: app.draft?.state.box ?? null,
    brush: app.tool === "click" ? null : { radius: app.radius, erases: app.tool === "eraser" },
  };
}

function classes() {
  return app.session.classes;
}

function colourOfObject({ id, class: known }) {
  return known === null && !classes().length ? rgbOf(colourOfNumber(id)) : colourOf(known);
}

function colourOf(id) {
  return rgbOf(classes().find((known) => known.id === id)?.colour ?? NO_CLASS);
}

function suggestion() {
  return app.walk?.items[app.walk.at] ?? null;
}

/** The class of new objects; null: none, or the one that the model says. */
function activeClass() {
  if (app.activeClass !== undefined) return app.activeClass;
  return app.session.model.knows_classes ? null : (classes()[0]?.id ?? null);
}

/** Class that the drawn object would get. */
function classNow() {
  const { draft } = app;
  if (draft && draft.objectClass !== undefined) return draft.objectClass;
  const current = suggestion();
  if (current) return current.class ?? activeClass();
  return activeClass() ?? draft?.answer?.class ?? null;
}

function inside([x, y]) {
  return app.raster !== null && x >= 0 && y >= 0 && x < app.raster.width && y < app.raster.height;
}

/** Bring the page up to date with the state. */
function show() {
  lists.showObjects();
  lists.showClasses(classNow());
  showPrompt();
  const { labels, draft, walk } = app;
  byId("undo").disabled = !(draft?.past.length || walk?.past.length || labels?.undo);
  byId("redo").disabled = !(draft?.future.length || labels?.redo);
  for (const tool of ["click", "brush", "eraser"]) press(byId(`tool-${tool}`), app.tool === tool);
  press(byId("suggest"), walk !== null);
  press(byId("done"), Boolean(labels?.done));
  press(byId("hide"), app.hidden);
  byId("brush-size").hidden = app.tool === "click";
  byId("selected-actions").hidden = app.selected === null || draft !== null;
  stage.canvas.style.cursor = app.tool === "click" ? "crosshair" : "none";
  showSaved();
  document.body.dataset.state = JSON.stringify({
    key: app.image?.key ?? null, version: labels?.version ?? null, objects: labels?.objects.size ?? 0,
    draft: draft !== null, waiting: draft?.waiting ?? false, walk: walk ? [walk.at, walk.items.length] : null,
    selected: app.selected, ready: app.ready, gone: app.gone,
  });
  stage.redraw();
}

function showPrompt() {
  const text = byId("prompt");
  const { draft, walk } = app;
  const named = (id) => {
    const known = classes().find((item) => item.id === id);
    return known ? `, ${known.name}` : "";
  };
  if (draft) {
    const { masks, index, doubt } = draft.state;
    if (draft.waiting) text.textContent = app.ready ? "Segmenting …" : "Encoding the image …";
    else if (!draft.mask) text.textContent = "Nothing found here. Click again, draw a box or use the brush. Esc drops it.";
    else {
      const found = draft.answer;
      const alternatives = found ? `, mask ${index + 1} of ${masks.length}` : "";
      const score = found ? `Predicted IoU ${found.score.toFixed(2)}${alternatives}` : `Painted, ${draft.mask.area} px`;
      const what = draft.replaces !== null ? " in place of the selected object" : "";
      const next = found && masks.length > 1 ? ", A shows the next mask" : "";
      text.textContent =
        `${score}${named(classNow())}. Enter accepts${what}${next}, Esc drops.${doubt && found ? ` ${doubt}` : ""}`;
    }
  } else if (walk) {
    const current = suggestion();
    const place = `Suggestion ${walk.at + 1} of ${walk.items.length}, score ${current.score.toFixed(2)}`;
    text.textContent = `${place}${named(classNow())}. Enter accepts, N refuses, Shift+Enter accepts all that are left, Esc stops.`;
  } else if (app.selected !== null) {
    const object = app.labels.objects.get(app.selected);
    text.textContent = `Object ${object.id}${named(object.class)}, ${object.area} px. A number changes its class, ` +
      "B and E its pixels, R draws it again, Delete deletes it.";
  } else if (app.tool !== "click") text.textContent = "Paint an object; the right button erases. , and . change the size.";
  else text.textContent = "Click an object or drag a box around it. S suggests every object, ? shows all keys.";
  text.classList.toggle("active", draft !== null || walk !== null || app.selected !== null);
}

function showSaved() {
  const { labels } = app;
  if (!labels) return;
  const count = `${labels.objects.size} object${labels.objects.size === 1 ? "" : "s"} on disk`;
  byId("saved").textContent = app.gone
    ? "The server is gone: nothing is saved now"
    : labels.savedAt ? `Saved ${clock(labels.savedAt)}, ${count}` : count;
}

function showValue() {
  const { cursor, raster } = app;
  const zoom = stage.view.zoom;
  byId("zoom").textContent = zoom >= 1 ? `${Number(zoom.toPrecision(3))} × native` : `${(100 * zoom).toPrecision(3)} %`;
  const text = byId("value");
  if (!raster || !cursor || !inside(cursor)) {
    text.textContent = raster ? `${raster.width} × ${raster.height} px` : "–";
    return;
  }
  const [x, y] = cursor.map(Math.floor);
  const { display } = panel;
  const read = display.channels.map((index) => raster.value(index, x, y));
  const parts = read.map((found, i) => {
    const channel = app.image.channels[display.channels[i]];
    if (!found) return `${channel.name} …`;
    const range = channel.range ? (channel.range[1] - channel.range[0]) / 5 : 1;
    const whole = channel.unit === "count" && Math.abs(found.value - Math.round(found.value)) <= found.step;
    const value = found.value === null ? "no data" : shownValue(found.value, channel, whole ? 1000 : range);
    return `${channel.name} ${found.exact ? "" : "≈ "}${value}`;
  });
  if (display.mode === "index" && read.every((found) => found && found.value !== null)) {
    parts.unshift(`index ${((read[0].value - read[1].value) / (read[0].value + read[1].value)).toFixed(3)}`);
  }
  text.textContent = `x ${x}, y ${y}: ${parts.join(", ")}`;
}

// ---- doing something that may fail

function say(error) {
  if (error.name === "AbortError") return;
  if (error.code === "gone" || error.code === "restarted") {
    gone();
    return;
  }
  if (error.code === "stale") {
    messages.bad("Another tab or program changed this image. Its labels were loaded again; nothing of it was lost. " +
      (app.draft ? "What you are drawing is kept: Enter accepts it." : "Do it again if it is still needed."));
    if (app.selected !== null && !app.labels.objects.has(app.selected)) app.selected = null;
  } else messages.bad(error.message);
}

/** Run something of the server; failures become messages. Returns whether it worked. */
async function attempt(action, busy = "") {
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

// ---- images

const SETTLED_MS = 300; // an image that is only passed is not encoded

async function open(key) {
  if (!key) return;
  const opening = ++app.opening;
  await attempt(async () => {
    const image = await get(`/api/images/${key}`);
    if (opening !== app.opening) return;
    app.raster?.close();
    app.looking?.abort();
    if (app.draft?.mask && app.image.key !== key) {
      app.drafts.set(app.image.key, app.draft);
      messages.note(`What you were drawing in ${app.image.name} is kept: it is there when you come back.`);
    }
    const [height, width] = image.size_hw;
    const draft = app.image?.key === key ? app.draft : (app.drafts.get(key) ?? null);
    app.drafts.delete(key);
    Object.assign(app, { image, labels: new Labels(image), draft, walk: null, selected: null, ready: image.ready });
    app.raster = new Raster(image, () => stage.redraw(), say, () => app.gone);
    panel.setImage(image, app.raster);
    stage.setImage(width, height);
    byId("image-name").textContent = image.name;
    byId("image-name").title = image.name;
    history.replaceState(null, "", `#${key}`);
    lists.markOpen(key);
    if (image.notice) messages.note(image.notice);
    show();
    if (!image.ready) await new Promise((resolve) => setTimeout(resolve, SETTLED_MS));
    if (opening === app.opening) await encode();
  });
}

async function encode() {
  const { key } = app.image;
  byId("busy").textContent = app.ready ? "" : "Encoding …";
  try {
    const { ready, seconds, window } = await post(`/api/images/${key}/encode`, { tab: app.tab });
    if (!ready || key !== app.image.key) return;
    app.ready = true;
    byId("busy").textContent = window === null
      ? `Encoded in ${seconds.toFixed(1)} s` : `Cut into windows of ${window} px: encoded around each click`;
    show();
    const next = lists.neighbour(1);
    if (next) post(`/api/images/${next}/encode`, { tab: app.tab, ahead: true }).catch(() => {});
  } catch (error) {
    byId("busy").textContent = "";
    throw error;
  }
}

async function openUnsure() {
  await attempt(async () => {
    const found = await post("/api/next", { after: app.image?.key ?? null });
    if (found.key === null) messages.note("Nothing unlabelled is left.", false, "next");
    else {
      const place = `the least sure of ${found.ranked} images looked at, of ${found.of} without labels`;
      messages.note(`${found.name}: ${place}.`, false, "next");
      await open(found.key);
    }
  }, "Looking for the image the model is least sure of …");
}

// ---- drawing an object

function newDraft(options = {}) {
  app.draft = new Draft(app.image.key, [app.raster.width, app.raster.height], options);
  return app.draft;
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

function boxed([x0, y0, x1, y1]) {
  const { width, height } = app.raster;
  const box = [Math.max(0, x0), Math.max(0, y0), Math.min(width, x1), Math.min(height, y1)];
  if (box[2] - box[0] >= 1 && box[3] - box[1] >= 1) prompt((draft) => draft.setBox(box));
}

function beginStroke() {
  if (!app.raster) return;
  if (!app.draft && app.selected !== null) editSelected();
  if (!app.draft) newDraft(app.walk ? { mask: suggestion().mask } : {});
  app.draft.beginStroke();
}

function editSelected() {
  const object = app.labels.objects.get(app.selected);
  newDraft({ replaces: object.id, mask: object.mask, objectClass: object.class });
}

function redrawSelected() {
  if (app.selected === null || app.draft) return;
  const object = app.labels.objects.get(app.selected);
  newDraft({ replaces: object.id, objectClass: object.class });
  setTool("click");
  byId("prompt").textContent = "Click it or draw a box; Enter replaces the object, Esc leaves it.";
}

async function accept() {
  const { draft, walk } = app;
  if (!draft) {
    if (walk) await decide(true);
    return;
  }
  await draft.pending.catch(() => {});
  const mask = draft.mask?.trimmed();
  if (app.draft !== draft || draft.accepting) return;
  if (!mask) {
    messages.note(draft.replaces === null
      ? "There is no mask to accept."
      : "There is no mask to accept. Esc and then Delete removes the object.");
    return;
  }
  draft.accepting = true;
  const chosen = classNow();
  // Painted pixels are meant: they go to this object. A model's mask leaves others what is theirs.
  const overlap = draft.state.painted ? "take" : "keep";
  const edits = draft.replaces !== null && app.labels.objects.has(draft.replaces)
    ? [{ op: "replace", id: draft.replaces, mask: mask.toRuns(), overlap }]
    : [{ op: "add", mask: mask.toRuns(), class: chosen, overlap }];
  const before = app.labels.objects.get(draft.replaces);
  if (before && before.class !== chosen) edits.push({ op: "class", id: before.id, class: chosen });
  await attempt(async () => {
    await app.labels.edit(...edits);
    if (app.draft !== draft) return;
    app.draft = null;
    if (walk && app.walk === walk) step(walk, "accepted");
  });
  draft.accepting = false;
}

function drop() {
  if (app.draft) app.draft = null;
  else if (app.walk) app.walk = null;
  else app.selected = null;
  show();
}

function pick(id) {
  const known = id === null || classes().some((item) => item.id === id);
  if (!known) return;
  const { draft, walk } = app;
  if (!draft && !walk && app.selected !== null) {
    attempt(() => app.labels.edit({ op: "class", id: app.selected, class: id }));
  } else if (!draft && walk) suggestion().class = id;
  else {
    app.activeClass = id;
    app.choices += 1;
    if (draft && (draft.objectClass !== undefined || walk)) draft.objectClass = id;
  }
  show();
}

function select(id) {
  if (app.draft) return;
  app.selected = app.selected === id ? null : id;
  if (app.selected !== null) {
    app.walk = null;
    stage.view.show(app.labels.objects.get(id).mask);
  }
  show();
}

async function remove() {
  const { selected } = app;
  if (selected === null || app.draft) return;
  app.selected = null;
  await attempt(() => app.labels.edit({ op: "remove", id: selected }));
}

async function undo(back) {
  const { draft, walk } = app;
  if (draft && (back ? draft.undo() : draft.redo())) {
    show();
    return;
  }
  if (draft && (!draft.empty || draft.replaces !== null)) return;
  app.draft = null;
  if (back && walk?.past.length && !(await undoDecision(walk))) return;
  if (!back || !walk) {
    if (!(back ? app.labels.undo : app.labels.redo)) return;
    await attempt(() => app.labels.step(back ? "undo" : "redo"));
    if (app.selected !== null && !app.labels.objects.has(app.selected)) app.selected = null;
  }
  show();
}

// ---- suggestions

async function suggest() {
  if (app.walk) {
    app.walk = null;
    show();
    return;
  }
  const { key } = app.image;
  if (app.looking) return;
  const looking = new AbortController();
  app.looking = looking;
  await attempt(async () => {
    const { objects, how } = await get(`/api/images/${key}/suggestions?box=${seenBox().join()}`, looking.signal);
    if (key !== app.image.key) return;
    while (app.draft) await new Promise((resolve) => setTimeout(resolve, 200)); // what is being drawn comes first
    if (key !== app.image.key) return;
    if (!objects.length) {
      const none = `The model finds no ${app.labels.objects.size ? "further " : ""}object here.`;
      messages.note(`${none} Click what it misses: the more is labelled and the longer a training, the more it finds.`);
      return;
    }
    app.selected = null;
    app.walk = { items: objects.map((item) => ({ ...item, mask: Mask.fromRuns(item.mask) })), at: 0, past: [] };
    byId("busy").textContent = `${objects.length} suggestion${objects.length === 1 ? "" : "s"} (${how === "dense" ? "dense head" : "grid of clicks"})`;
    look();
  }, "Looking for every object …");
  if (app.looking === looking) app.looking = null;
}

/** The pixels in view as [x0, y0, x1, y1]; of a large image suggestions are for these. */
function seenBox() {
  const { view } = stage;
  const within = (value, most) => Math.min(most, Math.max(0, value));
  const [left, top] = view.toImage(0, 0);
  const [right, bottom] = view.toImage(view.width, view.height);
  const [x0, y0] = [within(Math.floor(left), app.raster.width - 1), within(Math.floor(top), app.raster.height - 1)];
  return [x0, y0, Math.max(x0 + 1, within(Math.ceil(right), app.raster.width)),
    Math.max(y0 + 1, within(Math.ceil(bottom), app.raster.height))];
}

/** Bring the suggestion that is asked about into view. */
function look() {
  stage.view.show(suggestion().mask);
}

async function decide(accepted) {
  const { walk } = app;
  if (!walk || walk.deciding) return;
  const { mask } = suggestion();
  walk.deciding = true;
  if (!accepted) step(walk, "refused");
  else {
    await attempt(async () => {
      await app.labels.edit({ op: "add", mask: mask.toRuns(), class: classNow(), overlap: "keep" });
      if (app.walk === walk) step(walk, "accepted");
    });
  }
  walk.deciding = false;
  show();
}

function step(walk, decision) {
  walk.past.push(decision);
  walk.at += 1;
  if (walk.at >= walk.items.length) {
    const count = walk.past.filter((past) => past === "accepted").length;
    messages.note(`All suggestions looked at: ${count} accepted, ${walk.past.length - count} refused.`);
    app.walk = null;
  } else look();
  show();
}

async function undoDecision(walk) {
  if (walk.past.at(-1) === "accepted" && !(await attempt(() => app.labels.step("undo")))) return false;
  walk.past.pop();
  walk.at -= 1;
  look();
  return true;
}

async function acceptAll() {
  const { walk } = app;
  if (!walk) return accept();
  if (walk.deciding) return;
  walk.deciding = true;
  let added = 0;
  const from = walk.at;
  const { edits: most, body } = app.session.limits;
  await attempt(async () => {
    while (walk.at < walk.items.length) {
      const batch = [];
      let bytes = 1000;
      for (const item of walk.items.slice(walk.at, walk.at + most)) {
        const edit = { op: "add", mask: item.mask.toRuns(), class: item.class ?? activeClass(), overlap: "skip" };
        bytes += JSON.stringify(edit).length + 1;
        if (batch.length && bytes > body) break;
        batch.push(edit);
      }
      added += (await app.labels.edit(...batch)).added.length;
      walk.at += batch.length; // these are not sent again, whatever becomes of the others
      walk.past = []; // Ctrl+Z takes back the batch
    }
    app.walk = null;
    const covered = walk.items.length - from - added;
    messages.note(`${added} suggestions accepted.${covered ? ` ${covered} were covered by others.` : ""} Ctrl+Z takes them back.`);
  }, "Saving …");
  walk.deciding = false;
}

// ---- keys and buttons

function setTool(tool) {
  app.tool = tool;
  show();
}

async function setDone() {
  await attempt(() => app.labels.setDone(!app.labels.done));
}

function resize(factor) {
  setRadius(app.radius * factor);
}

function setRadius(radius) {
  app.radius = Math.min(200, Math.max(0.5, radius));
  byId("brush").value = Math.log2(app.radius);
  byId("brush-size").title = `Brush of ${(2 * app.radius).toPrecision(3)} pixels (, and .)`;
  stage.redraw();
}

/** Click in the middle of the view, with the keyboard. */
function clickMiddle(label) {
  const at = stage.middle;
  if (inside(at)) prompt((draft) => draft.addPoint(at, label));
}

const PAN_PX = 80;
const FINE_PX = 4; // with Shift
const KEYS = {
  Enter: accept, " ": accept, Escape: drop, a: () => alternative(1), A: () => alternative(-1),
  c: () => setTool("click"), b: () => setTool("brush"), e: () => setTool("eraser"),
  ",": () => resize(1 / 1.25), ".": () => resize(1.25), "[": () => resize(1 / 1.25), "]": () => resize(1.25),
  p: () => clickMiddle(1), m: () => clickMiddle(0),
  s: suggest, n: () => !app.draft && decide(false), r: redrawSelected, Delete: remove,
  PageDown: () => open(lists.neighbour(1)), PageUp: () => open(lists.neighbour(-1)), u: openUnsure, d: setDone,
  f: () => stage.view.fit(), g: () => stage.view.zoomAt(1 / (stage.view.zoom * (window.devicePixelRatio || 1))),
  "+": () => stage.view.zoomAt(1.25), "=": () => stage.view.zoomAt(1.25), "-": () => stage.view.zoomAt(1 / 1.25),
  ArrowLeft: (px) => stage.aim(px, 0), ArrowRight: (px) => stage.aim(-px, 0),
  ArrowUp: (px) => stage.aim(0, px), ArrowDown: (px) => stage.aim(0, -px),
  l: () => panel.reset(), L: () => panel.wholeRange(), h: hide, "?": help, F1: help,
};

function alternative(by) {
  app.draft?.alternative(by);
  show();
}

function hide() {
  app.hidden = !app.hidden;
  show();
}

function help() {
  byId("help").showModal();
}

document.addEventListener("keydown", (event) => {
  const { target } = event;
  if (byId("help").open || !app.labels) return;
  const typing = target.matches("input, select");
  if (typing) {
    if (event.key === "Escape" || (event.key === "Enter" && target.type === "number")) stage.canvas.focus();
    return;
  }
  // [ and ] are typed with AltGr, which is Ctrl and Alt on some systems, or with Option on others.
  const bracket = ["[", "]"].includes(event.key);
  if ((event.ctrlKey || event.metaKey) && !bracket) {
    const key = event.key.toLowerCase();
    if (key === "z" || key === "y") {
      event.preventDefault();
      undo(key === "z" && !event.shiftKey);
    }
    return;
  }
  if (event.altKey && !bracket) return;
  if (target.matches("button, a, summary") && [" ", "Enter"].includes(event.key)) return; // presses it
  if (/^[0-9]$/.test(event.key)) {
    pick(event.key === "0" ? null : (classes()[Number(event.key) - 1]?.id ?? -1));
    return;
  }
  if (event.key === "Enter" && event.shiftKey) {
    acceptAll();
    return;
  }
  const action = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  if (event.repeat && !/Arrow|[[\],.+=-]/.test(event.key)) return;
  action(event.shiftKey ? FINE_PX : PAN_PX);
  stage.redraw();
});

const BUTTONS = {
  previous: () => open(lists.neighbour(-1)), following: () => open(lists.neighbour(1)), unsure: openUnsure, done: setDone,
  "tool-click": () => setTool("click"), "tool-brush": () => setTool("brush"), "tool-eraser": () => setTool("eraser"),
  suggest, undo: () => undo(true), redo: () => undo(false), "help-button": help, hide, redraw: redrawSelected,
  delete: remove,
};
for (const [id, action] of Object.entries(BUTTONS)) {
  byId(id).addEventListener("click", () => {
    if (!app.labels) return;
    stage.canvas.focus({ preventScroll: true }); // so that the keys that follow are of the image
    action();
  });
}
document.addEventListener("click", ({ target, detail }) => {
  // The keys that follow are of the image; who chooses with the keyboard stays in the list of classes or objects.
  if (target.closest("#images button") || (detail > 0 && target.closest("#classes button, #objects button"))) {
    stage.canvas.focus({ preventScroll: true });
  }
}, { capture: true }); // before the row makes way for a new one
byId("brush").addEventListener("input", ({ target }) => setRadius(2 ** Number(target.value)));
byId("train").addEventListener("click", () => {
  stage.canvas.focus({ preventScroll: true }); // Enter is of the image again: it would end the training
  attempt(() => training.toggle());
});
byId("export").addEventListener("click", () => {
  stage.canvas.focus({ preventScroll: true });
  attempt(() => download("/api/export/coco"), "Exporting …");
});
let adding = Promise.resolve();
byId("new-class").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = byId("class-name");
  const name = input.value.trim();
  const { choices } = app;
  if (!name) return;
  input.value = ""; // at once: what is typed while the server works is of the next class
  stage.canvas.focus();
  setClasses((known) => [...known, { id: null, name, colour: null }]).then((added) => {
    if (!added && !input.value) input.value = name;
    else if (added && app.choices === choices) app.activeClass = classes().at(-1).id;
    show();
  });
});

/** Send the list of classes as `change` makes it; one change after the other, as each sends the whole list. */
function setClasses(change) {
  adding = adding.then(() => attempt(async () => {
    const known = classes().map(({ id, name, colour }) => ({ id, name, colour }));
    app.session.classes = (await post("/api/classes", { classes: change(known) })).classes;
  }));
  return adding;
}

/** Give a class another name, or remove it with the name null. */
function rename(id, name) {
  setClasses((known) => known.flatMap((item) => (item.id !== id ? [item] : name === null ? [] : [{ ...item, name }])));
}

window.addEventListener("beforeunload", (event) => {
  if (app.draft?.mask || app.drafts.size) event.preventDefault(); // a mask that was not accepted would be lost
});

// ---- the server's events

function gone() {
  if (app.gone) return;
  app.gone = true;
  messages.bad("The server does not answer. What was accepted is on disk, what you are drawing is kept here. " +
    "Start `simmat annotate` again with the same port: this page goes on by itself.", "gone");
  if (app.labels) show();
  retry();
}

async function retry() {
  while (app.gone) {
    await new Promise((resolve) => setTimeout(resolve, 1500));
    try {
      await get("/api/session");
      await back();
    } catch (error) {
      if (error.code === "token") {
        messages.bad("The server was started again: open the address that it printed, in another tab. " +
          "This page then goes on with what it holds.", "gone");
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
  server.session = session.session;
  app.gone = false;
  messages.clear("gone");
  await load();
  if (app.labels) {
    app.ready = false;
    await app.labels.refresh();
    if (app.selected !== null && !app.labels.objects.has(app.selected)) app.selected = null;
    messages.note("The server is back; the labels were read again.");
    show();
    await encode();
  }
}

const EVENTS = {
  hello: ({ session }) => {
    if (session !== server.session) attempt(back);
  },
  gone,
  image: ({ key, version, ...state }) => {
    lists.update(key, state);
    if (key !== app.image?.key) return;
    attempt(async () => {
      if (!(await app.labels.refresh(version))) return;
      if (app.selected !== null && !app.labels.objects.has(app.selected)) app.selected = null;
      messages.note("Another tab changed this image: its labels were loaded again.");
    });
  },
  training: (state) => training.show(state),
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

async function load() {
  const { images } = await get("/api/images");
  lists.setImages(images);
  training.show(app.session.training);
  training.showModel(app.session.model);
}

await attempt(async () => {
  app.session = await get("/api/session");
  server.session = app.session.session;
  setMaps(app.session.maps);
  byId("folder").textContent = app.session.name;
  byId("folder").title = app.session.folder;
  document.title = `${app.session.name} – SimMAT annotate`;
  if (app.session.notice) messages.note(app.session.notice, true);
  await load();
  // While the server is gone, or is one of another folder, nothing but its coming back counts.
  listen((kind, data) => (kind === "hello" || !app.gone) && EVENTS[kind]?.(data));
  const wanted = location.hash.slice(1);
  await open(lists.has(wanted) ? wanted : lists.first());
  stage.canvas.focus({ preventScroll: true });
});
