/** Masks from corners, and masks without their holes and specks. */

import { Mask } from "./masks.js";

const SPECK = 0.1; // a part smaller than this part of the largest one is a speck

/**
 * The pixels whose centres are inside a polygon (even-odd rule), or null where there are none.
 * @param corners [x, y] in image pixels, edges at whole numbers
 * @param size the image's `[width, height]`
 */
export function polygonMask(corners, [width, height]) {
  const within = (value, most) => Math.min(most, Math.max(0, value));
  const [xs, ys] = [0, 1].map((axis) => corners.map((corner) => corner[axis]));
  const x0 = within(Math.floor(Math.min(...xs)), width);
  const y0 = within(Math.floor(Math.min(...ys)), height);
  const w = within(Math.ceil(Math.max(...xs)), width) - x0;
  const h = within(Math.ceil(Math.max(...ys)), height) - y0;
  if (w <= 0 || h <= 0) return null;
  const bits = new Uint8Array(w * h);
  for (let row = 0; row < h; row += 1) {
    const y = y0 + row + 0.5;
    const crossings = [];
    for (let i = 0; i < corners.length; i += 1) {
      const [[ax, ay], [bx, by]] = [corners[i], corners[(i + 1) % corners.length]];
      if (ay <= y !== by <= y) crossings.push(ax + ((y - ay) / (by - ay)) * (bx - ax));
    }
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const [from, to] = [crossings[i], crossings[i + 1]].map((x) => within(Math.ceil(x - x0 - 0.5), w));
      bits.fill(1, row * w + from, row * w + to);
    }
  }
  return new Mask(x0, y0, w, h, bits).trimmed();
}

/** The pixels of either mask; each may be null. */
export function united(one, other) {
  if (!one || !other) return one ?? other;
  const [x, y] = [Math.min(one.x, other.x), Math.min(one.y, other.y)];
  const w = Math.max(one.x + one.w, other.x + other.w) - x;
  const h = Math.max(one.y + one.h, other.y + other.h) - y;
  const bits = new Uint8Array(w * h);
  for (const mask of [one, other]) {
    for (let row = 0; row < mask.h; row += 1) {
      const start = (mask.y + row - y) * w + mask.x - x;
      for (let column = 0; column < mask.w; column += 1) bits[start + column] |= mask.bits[row * mask.w + column];
    }
  }
  return new Mask(x, y, w, h, bits);
}

/** The mask with the background that it surrounds; corners that touch close a hole. */
export function withoutHoles({ x, y, w, h, bits }) {
  const outside = new Uint8Array((w + 2) * (h + 2)); // the box with a pixel of background around it: 1 where filled
  for (let row = 0; row < h; row += 1) outside.set(bits.subarray(row * w, (row + 1) * w), (row + 1) * (w + 2) + 1);
  flood(outside, w + 2, 0, 0, 2, [-1, 1, -w - 2, w + 2]);
  const kept = new Uint8Array(w * h);
  for (let row = 0; row < h; row += 1) {
    for (let column = 0; column < w; column += 1) {
      kept[row * w + column] = outside[(row + 1) * (w + 2) + column + 1] === 2 ? 0 : 1;
    }
  }
  return new Mask(x, y, w, h, kept);
}

/** The mask without parts that are much smaller than its largest; pixels that touch at a corner are of one part. */
export function withoutSpecks(mask) {
  return largeParts(mask, SPECK);
}

/** Whether a mask has parts that are much smaller than its largest. */
export function hasSpecks(mask) {
  mask.specks ??= withoutSpecks(mask).area !== mask.area; // asked with every change of the page
  return mask.specks;
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

function distance([ax, ay], [bx, by]) {
  return Math.hypot(ax - bx, ay - by);
}

function distanceToEdge([x, y], [ax, ay], [bx, by]) {
  const [dx, dy] = [bx - ax, by - ay];
  const squared = dx * dx + dy * dy;
  const along = squared ? Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / squared)) : 0;
  return Math.hypot(x - ax - along * dx, y - ay - along * dy);
}

/** Walk once around a mask of one part, between its pixels, with the mask on the right: the points where it turns. */
function traced({ x, y, w, h, bits }) {
  const has = (column, row) => column >= 0 && row >= 0 && column < w && row < h && bits[row * w + column] === 1;
  const first = bits.indexOf(1);
  const [startX, startY] = [first % w, Math.floor(first / w)];
  let [px, py, dx, dy] = [startX, startY, 1, 0];
  const points = [];
  do {
    points.push([x + px, y + py]);
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
function largeParts({ x, y, w, h, bits }, share) {
  const wide = w + 2;
  const parts = new Int32Array(wide * (h + 2)); // 0 background, -1 not seen yet, from 1 the number of the part
  for (let row = 0; row < h; row += 1) {
    for (let column = 0; column < w; column += 1) parts[(row + 1) * wide + column + 1] = -bits[row * w + column];
  }
  const areas = [0];
  const around = [-1, 1, -wide, wide, -wide - 1, 1 - wide, wide - 1, wide + 1];
  for (let at = 0; at < parts.length; at += 1) {
    if (parts[at] === -1) areas.push(flood(parts, wide, at, -1, areas.length, around));
  }
  const least = share * areas.reduce((largest, area) => Math.max(largest, area));
  const kept = new Uint8Array(w * h);
  for (let row = 0; row < h; row += 1) {
    for (let column = 0; column < w; column += 1) {
      const part = parts[(row + 1) * wide + column + 1];
      kept[row * w + column] = part && areas[part] >= least ? 1 : 0;
    }
  }
  return new Mask(x, y, w, h, kept);
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
