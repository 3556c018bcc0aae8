/** What more labels would bring: a sentence, a curve and a table. */

import { get } from "./api.js";
import { byId, element } from "./shared/dom.js";

const [WIDTH, HEIGHT] = [198, 104]; // of the curve, as in index.html
const [LEFT, RIGHT, TOP, BOTTOM] = [28, 10, 8, 18]; // its margins

export async function loadForecast() {
  const forecast = await get("/api/forecast");
  const { message, left_out: leftOut } = forecast;
  byId("forecast-text").textContent = [message, ...leftOut.map((reason) => `Not used: ${reason}`)].filter(Boolean).join(". ");
  byId("forecast").hidden = message !== "";
  if (message) return;
  const { more, gain } = forecast.rows[1];
  byId("forecast-short").textContent = `${more} more training images: about +${points(gain.median)} points of mIoU ` +
    `(80\u00a0%: ${points(gain.low)} to ${points(gain.high)}). ${whenToStop(forecast)}.`;
  byId("forecast-rows").tBodies[0].replaceChildren(...forecast.rows.map(row));
  byId("forecast-stop").textContent = `It is time to stop when ${forecast.step} more bring less than ${points(forecast.gain)} point.`;
  drawCurve(forecast);
}

function whenToStop({ enough, labels, most }) {
  if (enough === null) return `No end in sight up to ${most} images`;
  return enough <= labels ? "Time to stop" : `Stop at about ${enough} images`;
}

/** A share as points of a hundred; small ones with a decimal. */
function points(share) {
  return Number((100 * share).toFixed(Math.abs(share) < 0.0095 ? 1 : 0)).toString();
}

function row({ more, miou, gain, missed }) {
  const cells = [
    more ? `+${more}` : "now",
    more ? `+${points(gain.median)} (${points(gain.low)} to ${points(gain.high)})` : points(miou.median),
    missed === null ? "–" : points(missed.median),
  ];
  return element("tr", {}, ...cells.map((text) => element("td", {}, text)));
}

function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Draw the curve with its interval of 80 %, the recorded scores, and where the labels are now. */
function drawCurve({ curve, scores, labels, rows }) {
  const values = [...curve.flatMap(([, low, , high]) => [low, high]), ...scores.map(([, miou]) => miou)];
  const [low, high] = [Math.floor(10 * Math.min(...values)) / 10, Math.ceil(10 * Math.max(...values)) / 10];
  const [first, end] = [curve[0][0], curve.at(-1)[0]];
  const x = (count) => LEFT + ((count - first) / (end - first || 1)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low || 1)) * (HEIGHT - TOP - BOTTOM);
  const path = (pairs) => pairs.map(([count, value]) => `${x(count).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const band = [...curve.map(([count, under]) => [count, under]), ...[...curve].reverse().map(([count, , , over]) => [count, over])];
  const text = (words, left, top, anchor) => svg("text", { x: left, y: top, "text-anchor": anchor }, words);
  byId("forecast-curve").replaceChildren(
    svg("polygon", { class: "band", points: path(band) }),
    svg("line", { class: "now", x1: x(labels), x2: x(labels), y1: TOP, y2: HEIGHT - BOTTOM }),
    svg("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM }),
    svg("polyline", { class: "median", points: path(curve.map(([count, , median]) => [count, median])) }),
    ...scores.map(([count, miou]) => svg("circle", { cx: x(count), cy: y(miou), r: 2.5 })),
    ...[low, high].map((value) => text(value.toFixed(1), LEFT - 4, y(value) + 4, "end")),
    text(first, LEFT, HEIGHT - 4, "start"),
    x(labels) - LEFT > 28 ? text(`${labels} now`, x(labels), HEIGHT - 4, "middle") : "",
    text(Math.round(end), WIDTH - RIGHT, HEIGHT - 4, "end"),
  );
  const now = rows[0].miou;
  byId("forecast-curve").setAttribute("aria-label", `mIoU ${now.median.toFixed(2)} with ${labels} training images now, ` +
    `${rows.at(-1).miou.median.toFixed(2)} with ${Math.round(end)}`);
}
