/** The image: tiles of its levels, in the channels' units, and the colours they are shown in. */

import { getTile } from "./api.js";
import { MAPS } from "./colours.js";

const KEPT_BYTES = 384 * 2 ** 20;
const AT_ONCE = 6;
const HATCH = [Uint8Array.of(44, 66, 92, 255), Uint8Array.of(74, 104, 138, 255)].map((c) => new Uint32Array(c.buffer)[0]);
const HATCH_PX = 4;
const REFUSED_MS = 10000; // until a tile that failed is asked for again

/**
 * How an image is shown.
 *
 * mode "single", "rgb" (three channels) or "index": (a - b) / (a + b). `base` holds, for each plane, the values that are
 * black and white at first; `window` the part of it that is shown, [0, 1] at first.
 */
export class Display {
  constructor(mode, channels, map, base) {
    Object.assign(this, { mode, channels, map, base, window: [0, 1] });
  }

  /** Values of plane i that are shown darkest and brightest. */
  limits(i = 0) {
    const [low, high] = this.base[i];
    return this.window.map((part) => low + part * (high - low));
  }

  get version() {
    return JSON.stringify([this.mode, this.channels, this.map, this.base, this.window]);
  }
}

export class Raster {
  /**
   * @param image the server's document of an image
   * @param redraw called when a tile came
   * @param failed told why one did not
   * @param asleep whether nothing is asked for now
   */
  constructor(image, redraw, failed, asleep) {
    const [height, width] = image.size_hw;
    Object.assign(this, { key: image.key, digest: image.digest, levels: image.levels, tile: image.tile });
    Object.assign(this, { width, height, redraw, failed, asleep });
    this.tiles = new Map(); // "level/column/row" -> {w, h, planes: Map(channel -> plane), canvas, version}
    this.waiting = new Map(); // the same -> AbortController
    this.refused = new Map(); // the same -> when it failed
    this.bytes = 0;
  }

  /** Draw what the view shows, in pixels of the screen; tiles that are missing are asked for, the nearest to the middle first. */
  draw(context, view, display, ratio) {
    const level = Math.min(this.levels - 1, Math.max(0, Math.floor(Math.log2(1 / (view.zoom * ratio)) + 1e-6)));
    const wanted = [];
    const { seen, middle } = view;
    for (let shown = this.levels - 1; shown >= level; shown -= 1) {
      const side = this.tile * 2 ** shown;
      const across = Math.ceil(this.width / side);
      const down = Math.ceil(this.height / side);
      const lastRow = Math.min(down, (seen.y + seen.height) / side);
      const lastColumn = Math.min(across, (seen.x + seen.width) / side);
      for (let row = Math.max(0, Math.floor(seen.y / side)); row < lastRow; row += 1) {
        for (let column = Math.max(0, Math.floor(seen.x / side)); column < lastColumn; column += 1) {
          const tile = this.tiles.get(`${shown}/${column}/${row}`);
          if (tile && display.channels.every((channel) => tile.planes.has(channel))) {
            this.#drawTile(context, view, display, tile, shown, column, row, ratio);
          } else if (shown === level || shown === this.levels - 1) {
            const away = Math.hypot((column + 0.5) * side - middle.x, (row + 0.5) * side - middle.y);
            wanted.push([shown === level ? away : -1, shown, column, row]);
          }
        }
      }
    }
    wanted.sort((a, b) => a[0] - b[0]);
    this.#ask(wanted, display.channels);
    return wanted.length;
  }

  #drawTile(context, view, display, tile, level, column, row, ratio) {
    const key = `${level}/${column}/${row}`;
    this.tiles.delete(key);
    this.tiles.set(key, tile); // newest last
    const version = display.version;
    if (tile.version !== version) {
      paint(tile, display);
      tile.version = version;
    }
    const scale = 2 ** level;
    // Edges on whole pixels of the screen: no seams.
    const edge = (value, offset) => Math.round((value * view.zoom + offset) * ratio);
    const x0 = edge(column * this.tile * scale, view.offset.x);
    const y0 = edge(row * this.tile * scale, view.offset.y);
    const x1 = edge(Math.min(this.width, (column * this.tile + tile.w) * scale), view.offset.x);
    const y1 = edge(Math.min(this.height, (row * this.tile + tile.h) * scale), view.offset.y);
    context.imageSmoothingEnabled = view.zoom * scale * ratio < 1;
    context.drawImage(tile.canvas, x0, y0, x1 - x0, y1 - y0);
  }

  #ask(wanted, channels) {
    if (this.asleep()) return;
    const names = new Set(wanted.map(([, ...place]) => place.join("/")));
    for (const [key, controller] of this.waiting) if (!names.has(key)) controller.abort();
    for (const [, ...place] of wanted) {
      if (this.waiting.size >= AT_ONCE) return;
      const key = place.join("/");
      if (this.waiting.has(key) || performance.now() - this.refused.get(key) < REFUSED_MS) continue;
      this.#fetch(key, place, channels);
    }
  }

  async #fetch(key, place, channels) {
    const controller = new AbortController();
    this.waiting.set(key, controller);
    const known = this.tiles.get(key);
    const missing = [...new Set(channels)].filter((channel) => !known?.planes.has(channel));
    try {
      const { w, h, planes } = await getTile(this.key, this.digest, ...place, missing, controller.signal);
      const tile = this.tiles.get(key) ?? { w, h, planes: new Map(), canvas: new OffscreenCanvas(w, h), version: "" };
      missing.forEach((channel, i) => tile.planes.set(channel, planes[i]));
      this.tiles.set(key, tile);
      this.bytes += w * h * (2 * missing.length + (known ? 0 : 4));
      this.#forget();
    } catch (error) {
      if (error.name !== "AbortError") {
        this.refused.set(key, performance.now());
        setTimeout(this.redraw, REFUSED_MS);
        this.failed(error);
      }
    } finally {
      if (this.waiting.get(key) === controller) this.waiting.delete(key);
      this.redraw();
    }
  }

  #forget() {
    for (const [key, tile] of this.tiles) {
      if (this.bytes <= KEPT_BYTES || this.tiles.size < 64) return;
      if (key.startsWith(`${this.levels - 1}/`)) continue;
      this.tiles.delete(key);
      this.bytes -= tile.w * tile.h * (4 + 2 * tile.planes.size);
    }
  }

  close() {
    for (const controller of this.waiting.values()) controller.abort();
  }

  /**
   * Value of a channel at an image pixel, of the finest level at hand.
   * @returns {{value: number|null, step: number, exact: boolean}|undefined} value null: no measurement, step: its
   * precision; undefined: not loaded
   */
  value(channel, x, y) {
    for (let level = 0; level < this.levels; level += 1) {
      const column = Math.floor(x / 2 ** level);
      const row = Math.floor(y / 2 ** level);
      const tile = this.tiles.get(`${level}/${Math.floor(column / this.tile)}/${Math.floor(row / this.tile)}`);
      const plane = tile?.planes.get(channel);
      if (!plane) continue;
      const value = plane.values[(row % this.tile) * tile.w + (column % this.tile)];
      return { value: value ? plane.offset + plane.scale * value : null, step: plane.scale, exact: level === 0 };
    }
    return undefined;
  }

  /** Valid values of a display's plane i in the tiles at hand of the coarsest level, sorted; null: none at hand. */
  values(display, i) {
    const last = this.levels - 1;
    const tile = this.tiles.get(`${last}/0/0`);
    const channels = display.mode === "index" ? display.channels : [display.channels[i]];
    if (!tile || !channels.every((channel) => tile.planes.has(channel))) return null;
    const planes = channels.map((channel) => tile.planes.get(channel));
    const found = [];
    for (let at = 0; at < planes[0].values.length; at += 1) {
      if (planes.every((plane) => plane.values[at])) {
        const read = planes.map((plane) => plane.offset + plane.scale * plane.values[at]);
        const value = display.mode === "index" ? difference(...read) : read[0];
        if (Number.isFinite(value)) found.push(value);
      }
    }
    return Float32Array.from(found).sort();
  }
}

function difference(a, b) {
  return (a - b) / (a + b);
}

/** Colour a tile's canvas. */
function paint(tile, display) {
  const { w, h } = tile;
  const pixels = new ImageData(w, h);
  const out = new Uint32Array(pixels.data.buffer);
  const planes = display.channels.map((channel) => tile.planes.get(channel));
  const steps = planes.map(({ offset, scale }, i) => {
    const [low, high] = display.limits(display.mode === "index" ? 0 : i);
    const gain = 255 / (high - low || 1);
    return { gain, slope: scale * gain, start: (offset - low) * gain, low };
  });
  const byte = (value) => (value < 0 ? 0 : value > 255 ? 255 : value) | 0;
  const [first, second, third] = planes.map((plane) => plane.values);
  const colours = new Uint32Array(256);
  if (display.mode !== "rgb") {
    const map = MAPS[display.map];
    for (let i = 0; i < 256; i += 1) colours[i] = rgba(map[3 * i], map[3 * i + 1], map[3 * i + 2]);
  }
  const [s] = steps;
  for (let at = 0; at < out.length; at += 1) {
    if (!first[at] || (second && (!second[at] || (third && !third[at])))) {
      out[at] = HATCH[Math.floor((Math.floor(at / w) + (at % w)) / HATCH_PX) % 2];
    } else if (display.mode === "single") {
      out[at] = colours[byte(first[at] * s.slope + s.start + 0.5)];
    } else if (display.mode === "index") {
      const a = planes[0].offset + planes[0].scale * first[at];
      const b = planes[1].offset + planes[1].scale * second[at];
      out[at] = colours[byte((difference(a, b) - s.low) * s.gain + 0.5)];
    } else {
      const [, g, b] = steps;
      out[at] = rgba(
        byte(first[at] * s.slope + s.start + 0.5),
        byte(second[at] * g.slope + g.start + 0.5),
        byte(third[at] * b.slope + b.start + 0.5),
      );
    }
  }
  tile.canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function rgba(r, g, b) {
  return (255 << 24) | (b << 16) | (g << 8) | r; // little-endian, as every browser's machine is
}
