/** Masks: row-major runs inside a bounding box, as the server stores them, and bits to look at and to paint on. */

const DRAWN_PX = 4e6; // a larger bounding box is drawn from every nth pixel
const ROOM_PX = 128;

export class Mask {
  /** Pixels (x, y) .. (x + w, y + h) of the image; `bits` is (w * h) of 0 and 1, row by row. */
  constructor(x, y, w, h, bits) {
    Object.assign(this, { x, y, w, h, bits });
    this.path = null;
    this.fills = new Map();
  }

  /** From `{box: [x0, y0, x1, y1], runs}`: lengths of runs, row by row of the box, the first of background. */
  static fromRuns({ box: [x, y, right, bottom], runs }) {
    const [w, h] = [right - x, bottom - y];
    const bits = new Uint8Array(w * h);
    let at = 0;
    let value = 0;
    for (const count of runs) {
      if (value) bits.fill(1, at, at + count);
      at += count;
      value = 1 - value;
    }
    return new Mask(x, y, w, h, bits);
  }

  toRuns() {
    const runs = [];
    let value = 0;
    let length = 0;
    for (const bit of this.bits) {
      if (bit === value) length += 1;
      else {
        runs.push(length);
        value = bit;
        length = 1;
      }
    }
    runs.push(length);
    return { box: [this.x, this.y, this.x + this.w, this.y + this.h], runs };
  }

  get area() {
    let sum = 0;
    for (const bit of this.bits) sum += bit;
    return sum;
  }

  has(x, y) {
    const column = Math.floor(x) - this.x;
    const row = Math.floor(y) - this.y;
    return column >= 0 && row >= 0 && column < this.w && row < this.h && this.bits[row * this.w + column] === 1;
  }

  /** The same mask with the smallest bounding box, or null where it is empty. */
  trimmed() {
    const { w, h, bits } = this;
    let [left, top, right, bottom] = [w, h, -1, -1];
    for (let row = 0; row < h; row += 1) {
      const first = bits.indexOf(1, row * w) - row * w;
      if (first < 0) break;
      if (first >= w) continue;
      top = Math.min(top, row);
      bottom = row;
      left = Math.min(left, first);
      right = Math.max(right, bits.lastIndexOf(1, row * w + w - 1) - row * w);
    }
    if (bottom < 0) return null;
    const width = right - left + 1;
    const kept = new Uint8Array(width * (bottom - top + 1));
    for (let row = top; row <= bottom; row += 1) {
      kept.set(bits.subarray(row * w + left, row * w + right + 1), (row - top) * width);
    }
    return new Mask(this.x + left, this.y + top, width, bottom - top + 1, kept);
  }

  /**
   * The mask with a stroke of a round brush painted (value 1) or erased (0): a copy, or itself where it is `own`.
   * @param mask the mask, or null for an empty one
   * @param from,to `[x, y]` in image pixels
   * @param size the image's `[width, height]`
   * @param own whether nothing else holds the mask
   */
  static stroked(mask, from, to, radius, value, [width, height], own = false) {
    const reach = Math.ceil(radius) + 1;
    let left = Math.max(0, Math.floor(Math.min(from[0], to[0])) - reach);
    let top = Math.max(0, Math.floor(Math.min(from[1], to[1])) - reach);
    let right = Math.min(width, Math.ceil(Math.max(from[0], to[0])) + reach);
    let bottom = Math.min(height, Math.ceil(Math.max(from[1], to[1])) + reach);
    if (right <= left || bottom <= top || (!value && !mask)) return mask;
    const touched = [left, top, right, bottom];
    const holds = mask && left >= mask.x && top >= mask.y && right <= mask.x + mask.w && bottom <= mask.y + mask.h;
    let made = mask;
    if (own && (holds || !value)) {
      mask.path = null;
      mask.fills.clear();
    } else {
      if (mask && (!value || holds)) [left, top, right, bottom] = [mask.x, mask.y, mask.x + mask.w, mask.y + mask.h];
      else {
        // With room for what follows, so that a stroke copies the mask a few times, not with every move.
        left = Math.max(0, Math.min(left - ROOM_PX, mask?.x ?? left));
        top = Math.max(0, Math.min(top - ROOM_PX, mask?.y ?? top));
        right = Math.min(width, Math.max(right + ROOM_PX, mask ? mask.x + mask.w : right));
        bottom = Math.min(height, Math.max(bottom + ROOM_PX, mask ? mask.y + mask.h : bottom));
      }
      made = new Mask(left, top, right - left, bottom - top, new Uint8Array((right - left) * (bottom - top)));
      for (let row = 0; mask && row < mask.h; row += 1) {
        made.bits.set(mask.bits.subarray(row * mask.w, (row + 1) * mask.w), (mask.y + row - top) * made.w + mask.x - left);
      }
    }
    const { x: x0, y: y0, w, h, bits } = made;
    const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
    const squared = dx * dx + dy * dy;
    for (let y = Math.max(y0, touched[1]); y < Math.min(y0 + h, touched[3]); y += 1) {
      for (let x = Math.max(x0, touched[0]); x < Math.min(x0 + w, touched[2]); x += 1) {
        const [px, py] = [x + 0.5 - from[0], y + 0.5 - from[1]];
        const along = squared ? Math.min(1, Math.max(0, (px * dx + py * dy) / squared)) : 0;
        if (Math.hypot(px - along * dx, py - along * dy) <= radius) bits[(y - y0) * w + x - x0] = value;
      }
    }
    return made;
  }

  /** Every nth pixel, for drawing: {bits, w, h, step}. */
  #drawn() {
    const step = Math.max(1, Math.ceil(Math.sqrt((this.w * this.h) / DRAWN_PX)));
    if (step === 1) return { bits: this.bits, w: this.w, h: this.h, step };
    const w = Math.ceil(this.w / step);
    const h = Math.ceil(this.h / step);
    const bits = new Uint8Array(w * h);
    for (let row = 0; row < h; row += 1) {
      for (let column = 0; column < w; column += 1) {
        bits[row * w + column] = this.bits[row * step * this.w + column * step];
      }
    }
    return { bits, w, h, step };
  }

  /** Outline along the edges of pixels, in image pixels. */
  outline() {
    if (this.path) return this.path;
    const { bits, w, h, step } = this.#drawn();
    const path = new Path2D();
    const line = (x0, y0, x1, y1) => {
      path.moveTo(this.x + x0 * step, this.y + y0 * step);
      path.lineTo(this.x + x1 * step, this.y + y1 * step);
    };
    const at = (x, y) => (x >= 0 && y >= 0 && x < w && y < h ? bits[y * w + x] : 0);
    /** Draw the edges along each of the lines between pixels, joined where they go on. */
    const lines = (count, length, isEdge, draw) => {
      for (let i = 0; i <= count; i += 1) {
        let start = -1;
        for (let j = 0; j <= length; j += 1) {
          const edge = j < length && isEdge(i, j);
          if (edge && start < 0) start = j;
          if (!edge && start >= 0) {
            draw(i, start, j);
            start = -1;
          }
        }
      }
    };
    lines(h, w, (y, x) => at(x, y - 1) !== at(x, y), (y, from, to) => line(from, y, to, y));
    lines(w, h, (x, y) => at(x - 1, y) !== at(x, y), (x, from, to) => line(x, from, x, to));
    this.path = path;
    return path;
  }

  /** Draw the pixels in a colour `[r, g, b]` with an opacity `alpha`, 0..1, on a context in image pixels. */
  draw(context, [r, g, b], alpha) {
    const key = [r, g, b].join();
    let fill = this.fills.get(key);
    if (!fill) {
      const { bits, w, h, step } = this.#drawn();
      const canvas = new OffscreenCanvas(w, h);
      const pixels = new ImageData(w, h);
      const colour = new Uint32Array(pixels.data.buffer);
      const value = new Uint32Array(Uint8Array.of(r, g, b, 255).buffer)[0];
      for (let i = 0; i < bits.length; i += 1) if (bits[i]) colour[i] = value;
      canvas.getContext("2d").putImageData(pixels, 0, 0);
      fill = { canvas, w: w * step, h: h * step };
      this.fills.clear();
      this.fills.set(key, fill);
    }
    context.imageSmoothingEnabled = false;
    context.globalAlpha = alpha;
    context.drawImage(fill.canvas, this.x, this.y, fill.w, fill.h);
    context.globalAlpha = 1;
  }
}
