/** The annotator's page: its parts, and its start. */

import { get, listen } from "./api.js";
import { app, inTurn, listeners, messages, show } from "./app.js";
import { attempt } from "./attempt.js";
import { rename } from "./classes.js";
import { MAPS } from "./colours.js";
import { DisplayPanel } from "./display.js";
import { beginStroke, boxed, click, drawTrack, pick, select, selectAndCentre } from "./drawing.js";
import { EVENTS, gone, load } from "./events.js";
import { open } from "./images.js";
import "./keys.js";
import { Lists } from "./lists.js";
import { setParts } from "./parts.js";
import { scene, showAll, showValue } from "./scene.js";
import { byId } from "./shared/dom.js";
import { Stage } from "./stage.js";
import { MeasureTable } from "./table.js";
import { TrainingPanel } from "./training.js";
import { Wipe } from "./wipe.js";

export { app };
export * from "./parts.js";

listeners.changed = showAll;
listeners.gone = gone;
const panel = new DisplayPanel(() => stage?.redraw());
const wipe = new Wipe(() => stage?.redraw(), () => panel.display.channels);
const stage = new Stage(byId("canvas"), scene, {
  click: (at, label) => inTurn(() => click(at, label)),
  box: (box) => inTurn(() => boxed(box)),
  beginStroke: () => inTurn(beginStroke),
  stroke: (from, to, erases) => inTurn(() => {
    app.draft?.stroke({ from, to, radius: app.radius, erases });
    stage.redraw();
  }),
  endStroke: () => inTurn(show),
  select: (place) => inTurn(() => select(app.labels?.at(place)?.id ?? null)),
  moveCorner: (index, at) => {
    if (index < app.corners.length) app.corners[index] = at;
  },
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
const lists = new Lists(app, {
  open: (key) => inTurn(() => open(key)),
  select: (id) => inTurn(() => select(id)),
  drawTrack: (id, objectClass) => inTurn(() => drawTrack(id, objectClass)),
  pick: (id) => inTurn(() => pick(id)),
  rename,
});
const table = new MeasureTable((id) => inTurn(() => selectAndCentre(id)));
const training = new TrainingPanel(messages);
setParts({ stage, panel, wipe, lists, table, training });

await attempt(async () => {
  app.session = await get("/api/session");
  for (const [name, text] of Object.entries(app.session.maps)) {
    MAPS[name] = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  }
  byId("folder").textContent = app.session.name;
  byId("folder").title = app.session.folder;
  document.title = `${app.session.name} – SimMAT annotate`;
  if (app.session.notice) messages.note(app.session.notice, true);
  await load();
  // While the server is gone, or is one of another folder, nothing but its coming back counts.
  listen((kind, data) => (kind === "hello" || !app.gone) && EVENTS[kind]?.(data));
  const wanted = location.hash.slice(1);
  await open(lists.find(wanted) ? wanted : lists.first(), 1);
  stage.canvas.focus({ preventScroll: true });
});
