/** Masks from corners, and masks without their holes and specks. */

import { boxAround, maskOf, recropped, trimmed } from "./shared/masks.js";

const SPECK = 0.1; // a part smaller than this part of the largest one is a speck
const specks = new WeakMap(); // mask -> whether it has any

/**
 * The pixels whose centres are inside a polygon (even-odd rule), or null where there are none.
 * @param corners places {x, y} of the image, edges at whole numbers
 * @param image its {width, height}
 */
export function polygonMask(corners, image) {
  const within = (value, most) => Math.min(most, Math.max(0, value));
  const xs = corners.map((corner) => corner.x);
  const ys = corners.map((corner) => corner.y);
  const x0 = within(Math.floor(Math.min(...xs)), image.width);
  const y0 = within(Math.floor(Math.min(...ys)), image.height);
  const width = within(Math.ceil(Math.max(...xs)), image.width) - x0;
  const height = within(Math.ceil(Math.max(...ys)), image.height) - y0;
  if (width <= 0 || height <= 0) return null;
  const inside = new Uint8Array(width * height);
  for (let row = 0; row < height; row += 1) {
    const y = y0 + row + 0.5;
    const crossings = [];
    for (let i = 0; i < corners.length; i += 1) {
      const [a, b] = [corners[i], corners[(i + 1) % corners.length]];
      if (a.y <= y !== b.y <= y) crossings.push(a.x + ((y - a.y) / (b.y - a.y)) * (b.x - a.x));
    }
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const [from, to] = [crossings[i], crossings[i + 1]].map((x) => within(Math.ceil(x - x0 - 0.5), width));
      inside.fill(1, row * width + from, row * width + to);
    }
  }
  return trimmed(maskOf({ x: x0, y: y0, width, height, inside }));
}

/** The pixels of either mask; each may be null. */
export function united(one, other) {
  if (!one || !other) return one ?? other;
  const box = boxAround(one, other);
  const { inside } = recropped(one, box);
  recropped(other, box).inside.forEach((pixel, at) => {
    inside[at] |= pixel;
  });
  return maskOf({ ...box, inside });
}

/** The mask with the background that it surrounds; corners that touch close a hole. */
export function withoutHoles(mask) {
  const framed = recropped(mask, withFrame(mask));
  const outside = framed.inside; // 1 in the mask, 2 where the background reaches the frame
  flood(outside, framed.width, 0, 0, 2, [-1, 1, -framed.width, framed.width]);
  const inside = outside.map((value) => (value === 2 ? 0 : 1));
  return recropped(maskOf({ ...framed, inside }), mask);
}

/** The box of a mask with a pixel around it. */
function withFrame({ x, y, width, height }) {
  return { x: x - 1, y: y - 1, width: width + 2, height: height + 2 };
}

/** The mask without parts that are much smaller than its largest; pixels that touch at a corner are of one part. */
export function withoutSpecks(mask) {
  return largeParts(mask, SPECK);
}

/** Whether a mask has parts that are much smaller than its largest. */
export function hasSpecks(mask) {
  if (!specks.has(mask)) specks.set(mask, withoutSpecks(mask).area !== mask.area); // asked with every change of the page
  return specks.get(mask);
}

/** The outline of the largest part of a mask, with as few corners as follow it within about a pixel. */
export function cornersOf(mask) {
  const outline = traced(withoutHoles(largeParts(mask, 1)));
  const away = outline.map((point) => distance(point, outline[0]));
  const farthest = away.indexOf(Math.max(...away));
  const tolerance = Math.max(1, Math.sqrt(mask.area) / 60);
  const there = simplified(outline.slice(0, farthest + 1), tolerance);
  const back = simplified([...outline.slice(farthest), outline[0]], tolerance);
  return [...there.slice(0, -1), ...back.slice(0, -1)];
}

/** Put a corner into the edge of a closed polygon that is nearest to it. */
export function insertCorner(corners, at) {
  const away = corners.map((corner, i) => distanceToEdge(at, corner, corners[(i + 1) % corners.length]));
  corners.splice(away.indexOf(Math.min(...away)) + 1, 0, at);
}

export function nearestCorner(corners, at) {
  const away = corners.map((corner) => distance(corner, at));
  return away.indexOf(Math.min(...away));
}

export function distance(one, other) {
  return Math.hypot(one.x - other.x, one.y - other.y);
}

function distanceToEdge(at, from, to) {
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const squared = dx * dx + dy * dy;
  const along = squared ? Math.min(1, Math.max(0, ((at.x - from.x) * dx + (at.y - from.y) * dy) / squared)) : 0;
  return Math.hypot(at.x - from.x - along * dx, at.y - from.y - along * dy);
}

/** Walk once around a mask of one part, between its pixels, with the mask on the right: the points where it turns. */
function traced({ x, y, width, height, inside }) {
  const has = (column, row) => column >= 0 && row >= 0 && column < width && row < height && inside[row * width + column] === 1;
  const first = inside.indexOf(1);
  const [startX, startY] = [first % width, Math.floor(first / width)];
  let [px, py, dx, dy] = [startX, startY, 1, 0];
  const points = [];
  do {
    points.push({ x: x + px, y: y + py });
    do {
      px += dx;
      py += dy;
    } while (!turns());
  } while (px !== startX || py !== startY);
  return points;

  /** Turn where the edge turns; pixels that touch at a corner are walked around together. */
  function turns() {
    const [ahead, beside] = [[dx - dy, dy + dx], [dx + dy, dy - dx]].map(([ax, ay]) => [px + (ax - 1) / 2, py + (ay - 1) / 2]);
    if (has(...beside)) [dx, dy] = [dy, -dx]; // to the left
    else if (!has(...ahead)) [dx, dy] = [-dy, dx]; // to the right
    else return false;
    return true;
  }
}

/** The points of a line that are needed to follow it within a tolerance in pixels (Douglas and Peucker 1973). */
function simplified(points, tolerance) {
  const kept = new Set([0, points.length - 1]);
  const waiting = [[0, points.length - 1]];
  while (waiting.length) {
    const [from, to] = waiting.pop();
    let [most, at] = [tolerance, -1];
    for (let i = from + 1; i < to; i += 1) {
      const away = distanceToEdge(points[i], points[from], points[to]);
      if (away > most) [most, at] = [away, i];
    }
    if (at < 0) continue;
    kept.add(at);
    waiting.push([from, at], [at, to]);
  }
  return points.filter((_, i) => kept.has(i));
}

/** The parts of a mask that have at least a share of the pixels of its largest. */
function largeParts(mask, share) {
  const framed = recropped(mask, withFrame(mask));
  const { width: wide } = framed;
  const parts = Int32Array.from(framed.inside, (pixel) => -pixel); // 0 background, -1 not seen yet, from 1 the number of the part
  const areas = [0];
  const around = [-1, 1, -wide, wide, -wide - 1, 1 - wide, wide - 1, wide + 1];
  for (let at = 0; at < parts.length; at += 1) {
    if (parts[at] === -1) areas.push(flood(parts, wide, at, -1, areas.length, around));
  }
  const least = share * areas.reduce((largest, area) => Math.max(largest, area));
  const inside = Uint8Array.from(parts, (part) => (part && areas[part] >= least ? 1 : 0));
  return recropped(maskOf({ ...framed, inside }), mask);
}

/** Give a connected region of one value another value; returns its pixels. */
function flood(plane, wide, start, from, to, around) {
  const waiting = [start];
  plane[start] = to;
  let count = 0;
  while (waiting.length) {
    const at = waiting.pop();
    const column = at % wide;
    count += 1;
    for (const step of around) {
      const next = at + step;
      if (next >= 0 && next < plane.length && plane[next] === from && Math.abs((next % wide) - column) <= 1) {
        plane[next] = to;
        waiting.push(next);
      }
    }
  }
  return count;
}
