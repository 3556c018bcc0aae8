/** The frame bar: what is known of the frames of a sequence, and following objects through them. */

import { post } from "./api.js";
import { app, holdTurn, messages, show } from "./app.js";
import { attempt } from "./attempt.js";
import { open } from "./images.js";
import { lists } from "./parts.js";
import { byId, fitCanvas } from "./shared/dom.js";

const COLOURS = { none: "#4a4a4a", followed: "#56b4e9", hand: "#f2f2f2", low: "#ff8c42" };

/** The images of the open image's sequence, in order; none if it is not a frame. */
function frames() {
  const sequence = lists.find(app.image?.key)?.sequence;
  return sequence ? lists.images.filter((image) => image.sequence === sequence) : [];
}

function limit() {
  return Number(byId("limit").value);
}

/** Whether a person has drawn or accepted an object of a frame, or says that it is done. */
function isKeyframe({ labelled, done, objects, followed = 0 }) {
  return done || (labelled && (objects === null || objects > followed));
}

/** What was followed to a frame: "low" if its lowest score is below the limit, or an object is lost; else "followed". */
function followedState({ score }) {
  return (score ?? null) === null ? "none" : score < limit() ? "low" : "followed";
}

export function running() {
  return app.session.following.state === "running";
}

export function showFrames() {
  const shown = frames();
  byId("frames").hidden = !shown.length;
  if (!shown.length) return;
  const at = shown.findIndex((image) => image.key === app.image.key);
  const state = followedState(shown[at]);
  const words = [isKeyframe(shown[at]) ? "keyframe" : "", state === "none" ? "" : `followed, score ${shown[at].score.toFixed(2)}`];
  byId("frame-text").textContent = `Frame ${at + 1} of ${shown.length}: ${words.filter(Boolean).join(", ") || "no labels"}`;
  byId("frame-text").classList.toggle("low", state === "low");
  byId("follow").firstChild.textContent = running() ? "Stop " : "Follow ";
  draw(shown, at);
}

/** Keyframes are full and light; what was followed is of half the height, below the limit in orange up to the top. */
function draw(shown, at) {
  const { context, width, height } = fitCanvas(byId("frame-bar"));
  const step = width / shown.length;
  const bar = (i, top, colour) => {
    context.fillStyle = colour;
    context.fillRect(i * step, top, Math.max(1, step - (step > 4 ? 1 : 0)), height - top);
  };
  shown.forEach((image, i) => bar(i, height - 4, image.problem ? "#000" : COLOURS.none));
  shown.forEach((image, i) => isKeyframe(image) && bar(i, 4, COLOURS.hand));
  for (const [i, image] of shown.entries()) {
    const state = followedState(image);
    if (state !== "none") bar(i, state === "low" && !isKeyframe(image) ? 4 : height / 2, COLOURS[state]);
  }
  context.fillStyle = "#fff"; // where we are
  context.beginPath();
  const middle = (at + 0.5) * step;
  for (const [x, y] of [[middle - 5, 0], [middle + 5, 0], [middle, 6]]) context.lineTo(x, y);
  context.fill();
  context.strokeStyle = "#6cb8ee";
  context.lineWidth = 2;
  context.strokeRect(at * step, 1, Math.max(2, step), height - 2);
}

/** Fill the next frames (1) or those before (-1) with the objects of this one, or stop that. */
export async function follow(by) {
  if (running()) {
    await stopFollowing();
    return;
  }
  if (!frames().length) {
    messages.note("Only the frames of a sequence can be followed: folders and files in frames/.", false, "follow");
    return;
  }
  if (app.draft?.mask) {
    messages.note("What you are drawing is not saved yet: Enter accepts it, Esc drops it. Then T follows it.", false, "follow");
    return;
  }
  const count = by * Math.max(1, Math.round(Number(byId("follow-count").value)) || 10);
  app.watching = true;
  await attempt(async () => {
    const objects = app.selected === null ? [] : [app.selected];
    showFollowing(await post(`/api/images/${app.image.key}/follow`, { frames: count, objects }));
  });
}

export async function stopFollowing() {
  await attempt(async () => showFollowing(await post("/api/follow/stop", {})));
}

/** Show how far following is; while one watches, the frame that was filled last. */
export function showFollowing(state) {
  const ended = running() && state.state !== "running";
  app.session.following = state;
  if (ended && state.state === "failed") messages.bad(`Following ended: ${state.message}`, "follow");
  if (app.watching && state.key && state.key !== app.image.key && !app.draft) open(state.key, 0, true);
  if (ended) app.watching = false;
  if (app.labels) show();
}

/** Accept what was followed to this frame, and go to the next one that is not accepted; returns whether there was any. */
export async function acceptFrame() {
  if (!isFollowed()) return false;
  const shown = frames();
  const at = shown.findIndex((image) => image.key === app.image.key);
  if (await holdTurn(() => attempt(() => app.labels.edit({ op: "accept" })))) {
    const next = shown.slice(at + 1).find((image) => image.followed);
    if (next) await open(next.key, 0, true);
  }
  return true;
}

/** Whether an object was followed to this frame, or lost, and nobody has accepted that. */
export function isFollowed() {
  return app.labels.lost.length > 0 || [...app.labels.objects.values()].some((object) => object.score !== null);
}

/** Accept all followed frames but those below the limit; returns whether this is a sequence. */
export async function acceptFrames() {
  if (!frames().some((image) => image.followed)) return false;
  await holdTurn(() => attempt(async () => {
    const { frames: count } = await post(`/api/images/${app.image.key}/accept`, { score: limit() });
    messages.note(`${count} frames accepted. Frames below the limit of ${limit()} are left to check.`, false, "follow");
  }));
  return true;
}

const bar = byId("frame-bar");
for (const kind of ["pointerdown", "pointermove"]) {
  bar.addEventListener(kind, ({ offsetX, buttons }) => {
    const shown = frames();
    const key = shown[Math.min(shown.length - 1, Math.max(0, Math.floor((offsetX / bar.clientWidth) * shown.length)))]?.key;
    if (buttons === 1 && key && key !== app.image.key) open(key);
  });
}
new ResizeObserver(() => app.labels && showFrames()).observe(bar);
byId("limit").addEventListener("input", showFrames);
