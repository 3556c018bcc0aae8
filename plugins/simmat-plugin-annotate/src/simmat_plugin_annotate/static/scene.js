/** What the page shows of the state: the scene of the canvas, and the words and buttons around it. */

import { app, classNow, classes, colourOf, colourOfObject, inside, suggestion } from "./app.js";
import { staysLow } from "./draft.js";
import { isFollowed, running, showFrames } from "./frames.js";
import { lists, panel, stage, table, wipe } from "./parts.js";
import { hasSpecks } from "./shapes.js";
import { byId, setPressed } from "./shared/dom.js";
import { clock, shownValue } from "./show.js";
import { suspectText } from "./suspects.js";

const WHITE = [255, 255, 255];

export function scene() {
  if (!app.raster) return null;
  const shapes = [];
  const current = suggestion();
  if (app.walk) {
    for (const [i, item] of app.walk.items.entries()) {
      if (i > app.walk.at) shapes.push({ mask: item.mask, colour: WHITE, opacity: 0, lineWidth: 1, dash: [3, 3] });
    }
  }
  for (const mask of app.suspect?.object ? app.suspect.masks : []) {
    shapes.push({ mask, colour: WHITE, opacity: 0, lineWidth: 2, dash: [5, 4] });
  }
  const drawn = app.draft ? app.draft.mask : current?.mask;
  if (drawn) {
    shapes.push({ mask: drawn, colour: colourOf(classNow()), outline: WHITE, opacity: stronger(), lineWidth: 2, dash: [6, 4] });
  }
  return {
    raster: app.raster,
    display: panel.display,
    wipe: wipe.scene,
    objects: {
      version: [app.labels.state, app.hidden, app.draft?.replaces, app.selected, app.opacity, classes()],
      shapes: shapesOfObjects,
    },
    shapes,
    points: app.draft?.state.points ?? [],
    box: app.draft?.state.box ?? null,
    corners: app.tool === "polygon" ? app.corners : null,
    closed: app.closed,
    brush: !paints() ? null : { radius: app.radius, erases: app.tool === "eraser" },
  };
}

/** What is drawn of the objects that are on disk, but for the one that is being changed. */
function shapesOfObjects() {
  const shown = app.hidden ? [] : [...app.labels.objects.values()];
  return shown.filter((object) => object.id !== app.draft?.replaces).map((object) => {
    const chosen = object.id === app.selected;
    return {
      mask: object.mask,
      colour: colourOfObject(object),
      opacity: chosen ? stronger() : app.opacity,
      lineWidth: chosen ? 3 : 1.5,
      dash: object.predicted ? [2, 2] : [],
    };
  });
}

/** Opacity of the mask that is drawn or selected. */
function stronger() {
  return app.opacity && Math.min(1, app.opacity + 0.2);
}

function paints() {
  return app.tool === "brush" || app.tool === "eraser";
}

/** Bring the page up to date with the state. */
export function showAll() {
  if (!app.labels?.objects.has(app.selected)) app.selected = null; // it may have been removed
  lists.showObjects();
  lists.showClasses(classNow());
  showPrompt();
  const { labels, draft, walk } = app;
  byId("undo").disabled = !(app.corners.length || draft?.past.length || walk?.past.length || labels?.undo);
  byId("redo").disabled = !(draft?.future.length || labels?.redo);
  for (const tool of ["click", "brush", "eraser", "polygon"]) setPressed(byId(`tool-${tool}`), app.tool === tool);
  setPressed(byId("suggest"), walk !== null);
  setPressed(byId("done"), Boolean(labels?.done));
  setPressed(byId("hide"), app.hidden);
  byId("brush-size").hidden = !paints();
  byId("selected-actions").hidden = app.selected === null || draft !== null;
  byId("mask-actions").hidden = !(draft?.mask || (!draft && (walk || app.selected !== null)));
  stage.canvas.style.cursor = paints() ? "none" : "crosshair";
  showSaved();
  showFrames();
  showOrigin();
  table.show();
  document.body.dataset.state = JSON.stringify({
    key: app.image?.key ?? null, version: labels?.version ?? null, objects: labels?.objects.size ?? 0,
    draft: draft !== null, waiting: draft?.waiting ?? false, walk: walk ? [walk.at, walk.items.length] : null,
    selected: app.selected, ready: app.ready, gone: app.gone, following: app.session.following.state,
  });
  stage.redraw();
}

const CORNERS = "Click the corners of an object, one after the other.";

/** What to do about the mask of a draft that is probably wrong; "" where nothing says so. */
function remedies(draft) {
  const words = [];
  if (staysLow(draft)) words.push("The model is not sure of this mask. Draw it: O. Correct its outline: ⇧O.");
  if (draft.answer && hasSpecks(draft.mask)) words.push("Remove specks: X.");
  return words.map((word) => `${word} `).join("");
}

function showPrompt() {
  const text = byId("prompt");
  const { draft, walk } = app;
  const named = (id) => {
    const known = classes().find((item) => item.id === id);
    return known ? `, ${known.name}` : "";
  };
  let poor = false;
  if (app.corners.length && app.closed) {
    text.textContent = `${app.corners.length} corners of the outline: drag them; a click adds one, the right button removes ` +
      "the nearest one. Enter makes a mask from them, Esc leaves the mask as it was.";
  } else if (app.corners.length) {
    text.textContent = `${app.corners.length} corner${app.corners.length === 1 ? "" : "s"}. ` +
      "A click on the first corner or Enter closes the polygon, the right button removes the last corner, Esc drops it.";
  } else if (draft) {
    const { masks, index, warning } = draft.state;
    if (draft.waiting) text.textContent = app.ready ? "Segmenting …" : "Encoding the image …";
    else if (!draft.mask && app.tool === "polygon") text.textContent = CORNERS;
    else if (!draft.mask) text.textContent = "Nothing found here. Click again, draw a box or use the brush. Esc drops it.";
    else {
      const found = draft.answer;
      const alternatives = found ? `, mask ${index + 1} of ${masks.length}` : "";
      const score = found ? `Predicted IoU ${found.score.toFixed(2)}${alternatives}` : `Painted, ${draft.mask.area} px`;
      const what = draft.replaces !== null ? " in place of the selected object" : "";
      const next = found && masks.length > 1 ? ", A shows the next mask" : "";
      const help = remedies(draft);
      poor = help !== "";
      text.textContent =
        `${help}${score}${named(classNow())}. Enter accepts${what}${next}, Esc drops.${warning && found ? ` ${warning}` : ""}`;
    }
  } else if (suspectText()) {
    text.textContent = suspectText();
  } else if (walk) {
    const current = suggestion();
    const place = `Suggestion ${walk.at + 1} of ${walk.items.length}, score ${current.score.toFixed(2)}`;
    text.textContent = `${place}${named(classNow())}. Enter accepts, N refuses, Shift+Enter accepts all that are left, Esc stops.`;
  } else if (app.selected !== null) {
    const object = app.labels.objects.get(app.selected);
    const origin = object.predicted ? "Found by a model: V confirms it. " : "";
    text.textContent = `Object ${object.id}${named(object.class)}, ${object.area} px. ${origin}A number changes its class, ` +
      "B and E its pixels, R draws it again, Delete deletes it.";
  } else if (running()) {
    text.textContent = `Following: ${app.session.following.done} of ${app.session.following.frames} frames. Esc stops, Enter accepts the frame that is shown.`;
  } else if (app.labels && isFollowed()) {
    const lost = app.labels.lost.length ? ` Lost: object ${app.labels.lost.join(", ")}; if it is here, click it in the list.` : "";
    text.textContent = `Followed to this frame.${lost} Enter accepts; after a correction, T follows it further.`;
  } else if (app.tool === "polygon") text.textContent = CORNERS;
  else if (app.tool !== "click") text.textContent = "Paint an object; the right button erases. , and . change the size.";
  else text.textContent = "Click an object or drag a box around it. S suggests every object, ? shows all keys.";
  text.classList.toggle("poor", poor);
  text.classList.toggle("active", draft !== null || walk !== null || app.selected !== null || app.corners.length > 0);
}

/** Say on the image how many of its objects a model found. */
function showOrigin() {
  const objects = [...(app.labels?.objects.values() ?? [])];
  const found = objects.filter((object) => object.predicted).length;
  byId("origin").hidden = !found;
  byId("confirm").hidden = !found;
  byId("origin").textContent = `◇ ${found} of ${objects.length} found by a model: not for validation. ` +
    "Draw, click or confirm (V)";
}

function showSaved() {
  const { labels } = app;
  if (!labels) return;
  const count = `${labels.objects.size} object${labels.objects.size === 1 ? "" : "s"} on disk`;
  byId("saved").textContent = app.gone
    ? "The server is gone: nothing is saved now"
    : labels.savedAt ? `Saved ${clock(labels.savedAt)}, ${count}` : count;
}

export function showValue() {
  const { cursor, raster } = app;
  const zoom = stage.view.zoom;
  byId("zoom").textContent = zoom >= 1 ? `${Number(zoom.toPrecision(3))} × native` : `${(100 * zoom).toPrecision(3)} %`;
  const text = byId("value");
  if (!raster || !cursor || !inside(cursor)) {
    text.textContent = raster ? `${raster.width} × ${raster.height} px` : "–";
    return;
  }
  const [x, y] = [Math.floor(cursor.x), Math.floor(cursor.y)];
  const { display } = panel;
  const read = display.channels.map((index) => raster.value(index, x, y));
  const parts = read.map((found, i) => valueText(app.image.channels[display.channels[i]], found));
  const right = wipe.scene;
  for (const index of right?.display.channels ?? []) {
    if (!display.channels.includes(index)) parts.push(valueText(app.image.channels[index], right.raster.value(index, x, y)));
  }
  if (display.mode === "index" && read.every((found) => found && found.value !== null)) {
    parts.unshift(`index ${((read[0].value - read[1].value) / (read[0].value + read[1].value)).toFixed(3)}`);
  }
  text.textContent = `x ${x}, y ${y}: ${parts.join(", ")}`;
}

/** Name and value of a channel as `Raster.value` found it. */
function valueText(channel, found) {
  if (!found) return `${channel.name} …`;
  const range = channel.range ? (channel.range[1] - channel.range[0]) / 5 : 1;
  const whole = channel.unit === "count" && Math.abs(found.value - Math.round(found.value)) <= found.step;
  const value = found.value === null ? "no data" : shownValue(found.value, channel, whole ? 1000 : range);
  return `${channel.name} ${found.exact ? "" : "≈ "}${value}`;
}
