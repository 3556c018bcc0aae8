/** Masks of objects. A mask is never changed, so that undo can keep it. */

/**
 * A place in the image; (0, 0) is the corner of the first pixel, (0.5, 0.5) its centre.
 * @typedef {{ x: number, y: number }} Place
 */

/** @typedef {{ width: number, height: number }} Size */

/**
 * The pixels of an object, cropped to a box: `x` and `y` are its left and top pixel, `inside` is (height * width),
 * row by row, 1 inside.
 * @typedef {Place & Size & { inside: Uint8Array, area: number }} Mask
 */

/**
 * A part of a stroke of a round brush; `erases` is whether pixels are taken away.
 * @typedef {{ from: Place, to: Place, radius: number, erases: boolean }} Stroke
 */

/**
 * The mask of some pixels; counts its area.
 * @param {Place & Size & { inside: Uint8Array }} pixels
 * @returns {Mask}
 */
export function maskOf({ x, y, width, height, inside }) {
  let area = 0;
  for (const pixel of inside) area += pixel;
  return { x, y, width, height, inside, area };
}

/**
 * @param {Mask} mask
 * @param {Place} place
 */
export function contains(mask, { x, y }) {
  const column = Math.floor(x) - mask.x;
  const row = Math.floor(y) - mask.y;
  if (column < 0 || row < 0 || column >= mask.width || row >= mask.height) return false;
  return mask.inside[row * mask.width + column] === 1;
}

/**
 * The mask in another box, with background where it was not.
 * @template {Mask} Type
 * @param {Type} mask
 * @param {Place & Size} box
 * @returns {Type}
 */
export function recropped(mask, { x, y, width, height }) {
  const inside = new Uint8Array(width * height);
  const left = Math.max(x, mask.x);
  const right = Math.min(x + width, mask.x + mask.width);
  const top = Math.max(y, mask.y);
  const bottom = Math.min(y + height, mask.y + mask.height);
  for (let row = top; row < bottom && left < right; row += 1) {
    const start = (row - mask.y) * mask.width - mask.x;
    inside.set(mask.inside.subarray(start + left, start + right), (row - y) * width + left - x);
  }
  return { ...mask, x, y, width, height, inside };
}

/**
 * The mask in its smallest box, null if it is empty.
 * @template {Mask} Type
 * @param {Type} mask
 * @returns {Type | null}
 */
export function trimmed(mask) {
  const { width, height, inside } = mask;
  let left = width;
  let top = height;
  let right = -1;
  let bottom = -1;
  for (let row = 0; row < height; row += 1) {
    const pixels = inside.subarray(row * width, (row + 1) * width);
    const first = pixels.indexOf(1);
    if (first < 0) continue;
    left = Math.min(left, first);
    right = Math.max(right, pixels.lastIndexOf(1));
    top = Math.min(top, row);
    bottom = row;
  }
  if (bottom < 0) return null;
  return recropped(mask, { x: mask.x + left, y: mask.y + top, width: right - left + 1, height: bottom - top + 1 });
}

/**
 * The smallest box around two others.
 * @param {Place & Size} one
 * @param {Place & Size} other
 * @returns {Place & Size}
 */
export function boxAround(one, other) {
  const x = Math.min(one.x, other.x);
  const y = Math.min(one.y, other.y);
  const width = Math.max(one.x + one.width, other.x + other.width) - x;
  const height = Math.max(one.y + one.height, other.y + other.height) - y;
  return { x, y, width, height };
}

/**
 * The mask with a stroke painted or erased; null is a mask that was not begun.
 *
 * Its box may be larger than it needs, because a stroke has hundreds of parts. A mask may be erased until it is empty.
 * @param {Mask | null} mask
 * @param {Stroke} stroke
 * @param {Size} image
 * @returns {Mask | null}
 */
export function stroked(mask, { from, to, radius, erases }, image) {
  if (!mask && erases) return null;
  const left = Math.max(0, Math.floor(Math.min(from.x, to.x) - radius));
  const top = Math.max(0, Math.floor(Math.min(from.y, to.y) - radius));
  const right = Math.min(image.width, Math.ceil(Math.max(from.x, to.x) + radius));
  const bottom = Math.min(image.height, Math.ceil(Math.max(from.y, to.y) + radius));
  if (left >= right || top >= bottom) return mask;

  const touched = { x: left, y: top, width: right - left, height: bottom - top };
  const before = mask ?? { ...touched, inside: new Uint8Array(touched.width * touched.height), area: 0 };
  const painted = recropped(before, erases ? before : boxAround(before, touched));
  const alongX = to.x - from.x;
  const alongY = to.y - from.y;
  const squared = alongX * alongX + alongY * alongY;
  const value = erases ? 0 : 1;
  let changed = 0;
  for (let y = Math.max(top, painted.y); y < Math.min(bottom, painted.y + painted.height); y += 1) {
    for (let x = Math.max(left, painted.x); x < Math.min(right, painted.x + painted.width); x += 1) {
      const fromX = x + 0.5 - from.x;
      const fromY = y + 0.5 - from.y;
      const share = squared ? (fromX * alongX + fromY * alongY) / squared : 0;
      const nearest = Math.min(1, Math.max(0, share));
      const distance = Math.hypot(fromX - nearest * alongX, fromY - nearest * alongY);
      const at = (y - painted.y) * painted.width + x - painted.x;
      if (distance > radius || painted.inside[at] === value) continue;
      painted.inside[at] = value;
      changed += 1;
    }
  }
  return { ...painted, area: before.area + (erases ? -changed : changed) };
}
