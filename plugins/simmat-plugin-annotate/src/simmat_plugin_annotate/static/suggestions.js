/** Walk through the objects that the model finds. */

import { get } from "./api.js";
import { activeClass, app, classNow, holdTurn, messages, show, suggestion } from "./app.js";
import { attempt } from "./attempt.js";
import { stage } from "./parts.js";
import { maskOfRuns, runsOf } from "./runs.js";
import { byId } from "./shared/dom.js";
import { markOpen } from "./suspects.js";

let imported = null; // key of the image whose imported predictions were suggested last

export function suggest() {
  const own = imported === app.image.key ? "&model=1" : ""; // what was imported has been looked at
  const none = `The model finds no ${app.labels.objects.size ? "further " : ""}object here. ` +
    "Click the objects that it misses: with more labels and a longer training it finds more.";
  return walkThrough(own, "Looking for every object …", none);
}

/** Find what looks like the selected object, or else like what was looked for before; `all`: like all objects here. */
export async function findLike(all) {
  const { selected, labels, image } = app;
  if (all || selected !== null || !app.like) {
    if (!labels.objects.size) {
      messages.note("Label an object first: K then finds more like it, here and in the next images.", false, "like");
      return;
    }
    app.like = { key: image.key, name: image.name, objects: all || selected === null ? [] : [selected] };
  }
  const what = app.like.objects.length ? `object ${app.like.objects} of ${app.like.name}` : `the objects of ${app.like.name}`;
  const query = `&like=${app.like.key}&objects=${app.like.objects.join()}`;
  await walkThrough(query, `Looking for more like ${what} …`, `Nothing else here looks like ${what}.`);
}

/** Ask for suggestions and walk through them, or end the walk. */
async function walkThrough(query, busy, none) {
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
    const { objects, imported: fromFile } = await get(`/api/images/${key}/suggestions?box=${seenBox().join()}${query}`, looking.signal);
    if (key !== app.image.key) return;
    while (app.draft) await new Promise((resolve) => setTimeout(resolve, 200)); // what is being drawn comes first
    if (key !== app.image.key) return;
    if (!objects.length) {
      messages.note(none);
      return;
    }
    app.selected = null;
    app.walk = { items: objects.map((item) => ({ ...item, mask: maskOfRuns(item.mask) })), at: 0, past: [] };
    imported = fromFile ? key : null;
    byId("busy").textContent = `${objects.length} suggestion${objects.length === 1 ? "" : "s"}${fromFile ? " (imported)" : ""}`;
    look();
  }, busy);
  if (app.looking === looking) app.looking = null;
}

/** The pixels in view as [x0, y0, x1, y1]; of a large image suggestions are for these. */
function seenBox() {
  const { x, y, width, height } = stage.view.seen;
  const within = (value, most) => Math.min(most, Math.max(0, value));
  const [x0, y0] = [within(Math.floor(x), app.raster.width - 1), within(Math.floor(y), app.raster.height - 1)];
  const [x1, y1] = [within(Math.ceil(x + width), app.raster.width), within(Math.ceil(y + height), app.raster.height)];
  return [x0, y0, Math.max(x0 + 1, x1), Math.max(y0 + 1, y1)];
}

/** Bring the suggestion that is asked about into view. */
function look() {
  stage.view.reveal(suggestion().mask);
}

export async function decide(accepted) {
  const { walk } = app;
  if (!walk) return;
  if (!accepted && walk.suspect) {
    await markOpen();
    return;
  }
  const { mask } = suggestion();
  if (!accepted) step(walk, "refused");
  else {
    await holdTurn(() => attempt(async () => {
      await app.labels.edit({ op: "add", mask: runsOf(mask), class: classNow(), overlap: "keep", predicted: true });
      if (app.walk === walk) step(walk, "accepted");
    }));
  }
  show();
}

export function step(walk, decision) {
  walk.past.push(decision);
  walk.at += 1;
  if (walk.at >= walk.items.length) {
    const count = walk.past.filter((past) => past === "accepted").length;
    if (!walk.suspect) messages.note(`All suggestions checked: ${count} accepted, ${walk.past.length - count} refused.`);
    app.walk = null;
  } else look();
  show();
}

export async function undoDecision(walk) {
  if (walk.past.at(-1) === "accepted" && !(await attempt(() => app.labels.step("undo")))) return false;
  walk.past.pop();
  walk.at -= 1;
  look();
  return true;
}

/** Accept all suggestions that remain of a walk. */
export async function acceptRest(walk) {
  let added = 0;
  const from = walk.at;
  const { edits: most, body } = app.session.limits;
  await attempt(async () => {
    while (walk.at < walk.items.length) {
      const batch = [];
      let bytes = 1000;
      for (const item of walk.items.slice(walk.at, walk.at + most)) {
        const known = item.class ?? activeClass();
        const edit = { op: "add", mask: runsOf(item.mask), class: known, overlap: "skip", predicted: true };
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
}
