/** The panel that says how the image is shown: channels, colour map, and the values from darkest to brightest. */

import { MAPS } from "./colours.js";
import { Display } from "./raster.js";
import { byId, element, fitCanvas } from "./shared/dom.js";
import { decimals } from "./shared/numbers.js";
import { describe, shownUnit } from "./show.js";

const MAP_LABELS = { gray: "Gray", inferno: "Inferno", turbo: "Turbo", twilight: "Cyclic" };
const RGB_NAMES = ["R", "G", "B"];
const BINS = 124;

export class DisplayPanel {
  /** @param onchange called when the image is to be drawn again */
  constructor(onchange) {
    this.onchange = onchange;
    this.display = null;
    this.axis = null; // values at both ends of the scale, kept while it is dragged
    this.manual = false;
    this.histograms = null;
    this.canvas = byId("scale");
    byId("mode").addEventListener("change", (event) => this.#setMode(event.target.value));
    byId("map").addEventListener("change", (event) => {
      this.display.map = event.target.value;
      this.#changed();
    });
    for (const [value, label] of Object.entries(MAP_LABELS)) byId("map").append(element("option", { value }, label));
    for (const [end, id] of ["low", "high"].entries()) {
      byId(id).addEventListener("change", (event) => this.#typed(end, event.target.valueAsNumber));
    }
    byId("percentiles").addEventListener("click", () => this.reset());
    byId("whole-range").addEventListener("click", () => this.wholeRange());
    this.#listen();
  }

  /** Show another image; what was chosen stays where it has the same channels. */
  setImage(image, raster) {
    const same = JSON.stringify(image.channels.map(plain)) === JSON.stringify(this.channels?.map(plain));
    const before = this.display;
    this.channels = image.channels;
    this.shown = image.shown; // by default: one channel, or those shown as red, green and blue
    this.raster = raster;
    this.histograms = null;
    if (same && before) {
      const limits = before.base.map((_, i) => before.limits(i));
      this.display = new Display(before.mode, before.channels, before.map, this.#base(before.mode, before.channels));
      if (this.manual && before.mode !== "rgb") this.#setLimits(limits[0]);
      else if (this.manual) this.display.window = before.window;
    } else {
      const modes = [["single", "One channel"]];
      if (this.channels.length > 1) {
        const isTrue = this.channels.filter((channel) => channel.quantity === "srgb").length >= 3;
        modes.unshift(["rgb", isTrue ? "True or false colour" : "False colour"]);
        if (natural(this.channels)) modes.splice(1, 0, ["natural", "True colour"]);
        modes.push(["index", "Index (a − b) / (a + b)"]);
      }
      byId("mode").replaceChildren(...modes.map(([value, text]) => element("option", { value }, text)));
      byId("mode-label").hidden = modes.length === 1;
      this.#setMode(this.channels.length > 1 ? "rgb" : "single");
    }
    this.#fill();
    this.#changed();
  }

  #setMode(mode) {
    const first = this.display?.channels[0] ?? 0;
    let channels = [first < this.channels.length ? first : 0];
    if (mode === "rgb") channels = this.shown;
    if (mode === "natural") channels = natural(this.channels);
    if (mode === "index") channels = firstTwo(this.channels);
    this.#choose(mode === "natural" ? "rgb" : mode, channels);
  }

  #choose(mode, channels) {
    const map = mode === "single" ? this.channels[channels[0]].look.colours : "gray";
    this.display = new Display(mode, channels, map, this.#base(mode, channels));
    this.manual = false;
    this.histograms = null;
    this.#fill();
    this.#changed();
  }

  #base(mode, channels) {
    if (mode === "index") return [[-1, 1]];
    return channels.map((channel) => startOf(this.channels[channel]));
  }

  #fill() {
    const { mode, channels, map } = this.display;
    const isNatural = mode === "rgb" && channels.join() === natural(this.channels)?.join();
    byId("mode").value = isNatural ? "natural" : mode;
    byId("map").value = map;
    byId("map-label").hidden = mode === "rgb";
    const names = mode === "rgb" ? RGB_NAMES : mode === "index" ? ["a", "b"] : [""];
    const planes = names.map((name, i) => {
      const options = this.channels.map((channel, at) => element("option", { value: String(at) }, describe(channel)));
      const select = element("select", { "aria-label": `Channel ${name}`, onchange: (event) => {
        this.#choose(mode, channels.with(i, Number(event.target.value)));
      } }, ...options);
      select.value = String(channels[i]);
      return element("label", {}, name, select);
    });
    byId("planes").replaceChildren(...planes);
  }

  /** What the two numbers are: shown = factor * value + offset. */
  #unit() {
    const { mode, channels } = this.display;
    return mode === "single" ? shownUnit(this.channels[channels[0]]) : { name: mode === "rgb" ? "%" : "", factor: 1, offset: 0 };
  }

  /** Values from darkest to brightest; of three channels in percent of their ranges. */
  #limits() {
    return this.display.mode === "rgb" ? this.display.window.map((part) => part * 100) : this.display.limits(0);
  }

  #setLimits([low, high]) {
    if (!(high > low)) return;
    const [start, end] = this.display.mode === "rgb" ? [0, 100] : this.display.base[0];
    this.display.window = [(low - start) / (end - start), (high - start) / (end - start)];
  }

  #typed(end, value) {
    const limits = this.#limits();
    const { factor, offset } = this.#unit();
    limits[end] = (value - offset) / factor;
    if (Number.isFinite(value)) this.#setLimits(limits);
    this.manual = true;
    this.#changed();
  }

  /** Narrow or widen the window and move its level, by parts of it. */
  drag(narrower, lower) {
    const [low, high] = this.display.window;
    const width = Math.min(20, Math.max(1e-3, (high - low) * Math.exp(narrower)));
    const centre = (low + high) / 2 + lower * (high - low);
    this.display.window = [centre - width / 2, centre + width / 2];
    this.manual = true;
    this.#changed();
  }

  /** From the 2nd to the 98th percentile; where a quantity has a range of its own, that. */
  reset() {
    this.display.base = this.#base(this.display.mode, this.display.channels);
    if (this.display.mode === "index") this.#toPercentiles(0.02, 0.98);
    this.display.window = [0, 1];
    this.manual = false;
    this.#changed();
  }

  wholeRange() {
    this.#toPercentiles(0, 1);
    this.display.window = [0, 1];
    this.manual = true;
    this.#changed();
  }

  #toPercentiles(low, high) {
    this.display.base = this.display.base.map((base, i) => {
      const values = this.raster.values(this.display, i);
      if (!values?.length) return base;
      const ends = [low, high].map((part) => values[Math.round(part * (values.length - 1))]);
      return ends[1] > ends[0] ? ends : base;
    });
  }

  #changed() {
    const { name, factor, offset } = this.#unit();
    const limits = this.#limits();
    const range = factor * (limits[1] - limits[0]);
    byId("low").value = decimals(factor * limits[0] + offset, range);
    byId("high").value = decimals(factor * limits[1] + offset, range);
    for (const id of ["low", "high"]) byId(id).step = String(10 ** Math.floor(Math.log10(range / 20)));
    byId("unit").textContent = name;
    if (!this.dragging) this.axis = null;
    this.draw();
    this.onchange();
  }

  /** Read the histogram again where tiles came, and draw the scale. */
  tilesCame() {
    if (this.display && !this.histograms) this.draw();
  }

  draw() {
    const { display } = this;
    const { context, width } = fitCanvas(this.canvas);
    const limits = this.#limits();
    if (!this.axis) {
      const [low, high] = display.mode === "rgb" ? [0, 100] : display.base[0];
      const room = 0.3 * (high - low);
      this.axis = [Math.min(low - room, limits[0]), Math.max(high + room, limits[1])];
    }
    const [from, to] = this.axis;
    const at = (value) => 7 + ((value - from) / (to - from)) * (width - 14);

    this.histograms ??= this.#readHistograms();
    for (const [i, values] of (this.histograms ?? []).entries()) {
      context.fillStyle = display.mode === "rgb" ? ["#ff6b6b", "#5fd38d", "#6fa8ff"][i] : "#bdbdbd";
      context.globalAlpha = display.mode === "rgb" ? 0.55 : 1;
      const counts = new Float64Array(BINS);
      const [low, high] = display.base[i];
      for (const value of values) {
        const place = display.mode === "rgb" ? (100 * (value - low)) / (high - low) : value;
        const bin = Math.floor(((place - from) / (to - from)) * BINS);
        if (bin >= 0 && bin < BINS) counts[bin] += 1;
      }
      const most = Math.max(1, ...counts);
      for (let bin = 0; bin < BINS; bin += 1) {
        const height = counts[bin] ? Math.max(1, 26 * Math.sqrt(counts[bin] / most)) : 0;
        context.fillRect(7 + (bin * (width - 14)) / BINS, 28 - height, (width - 14) / BINS, height);
      }
    }
    context.globalAlpha = 1;
    for (let x = 7; x < width - 7; x += 1) {
      const value = from + ((x - 7) / (width - 14)) * (to - from);
      const part = Math.round(255 * Math.min(1, Math.max(0, (value - limits[0]) / (limits[1] - limits[0]))));
      const [r, g, b] = MAPS[display.mode === "rgb" ? "gray" : display.map].subarray(3 * part, 3 * part + 3);
      context.fillStyle = `rgb(${r} ${g} ${b})`;
      context.fillRect(x, 30, 1, 14);
    }
    context.strokeStyle = "#8a8a8a";
    context.strokeRect(6.5, 29.5, width - 13, 15);
    for (const value of limits) {
      const x = Math.min(width - 7, Math.max(7, at(value)));
      context.fillStyle = "#ffffff";
      context.strokeStyle = "#000000";
      context.beginPath();
      for (const [dx, y] of [[0, 41], [6, 56], [-6, 56]]) context.lineTo(x + dx, y);
      context.closePath();
      context.fill();
      context.stroke();
    }
  }

  #readHistograms() {
    const found = this.display.base.map((_, i) => this.raster.values(this.display, i));
    return found.every(Boolean) ? found : null;
  }

  #listen() {
    const { canvas } = this;
    const valueAt = (event) => {
      const [from, to] = this.axis;
      return from + ((event.offsetX - 7) / (canvas.clientWidth - 14)) * (to - from);
    };
    let end = null;
    canvas.addEventListener("pointerdown", (event) => {
      const value = valueAt(event);
      const limits = this.#limits();
      end = Math.abs(value - limits[0]) < Math.abs(value - limits[1]) ? 0 : 1;
      this.dragging = true;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (end === null) return;
      const limits = this.#limits();
      limits[end] = valueAt(event);
      this.#setLimits(limits);
      this.manual = true;
      this.#changed();
    });
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, () => {
        end = null;
        this.dragging = false;
      });
    }
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [0, -0.05], ArrowRight: [0, 0.05], ArrowUp: [-0.1, 0], ArrowDown: [0.1, 0] };
      if (!moves[event.key]) return;
      event.preventDefault();
      event.stopPropagation();
      this.drag(...moves[event.key]);
    });
  }
}

/** How a view of one channel, or of three as red, green and blue, is shown at first. */
export function displayOf(known, channels) {
  const mode = channels.length === 1 ? "single" : "rgb";
  const map = mode === "single" ? known[channels[0]].look.colours : "gray";
  return new Display(mode, channels, map, channels.map((channel) => startOf(known[channel])));
}

function plain({ name, quantity, unit }) {
  return [name, quantity, unit];
}

/** Values of a channel that are darkest and brightest at first. */
function startOf(channel) {
  if (channel.quantity === "srgb") return [0, 255];
  const range = channel.range ?? channel.valid_range ?? [0, 1];
  const { period } = channel.look;
  if (period !== null) return range[0] < 0 ? [-period / 2, period / 2] : [0, period];
  return range[1] > range[0] ? range : [range[0] - 0.5, range[0] + 0.5];
}

/** Index of the channel whose wavelength is nearest, -1 where none is within 0.1 µm. */
function nearest(channels, wavelength) {
  const distances = channels.map((channel) => Math.abs((channel.wavelength_um ?? 99) - wavelength));
  const best = distances.indexOf(Math.min(...distances));
  return distances[best] < 0.1 ? best : -1;
}

/** Channels of three wavelengths that an eye sees as red, green and blue; null where there are none. */
function natural(channels) {
  const found = [0.66, 0.56, 0.48].map((wavelength) => nearest(channels, wavelength));
  return found.includes(-1) || new Set(found).size < 3 ? null : found;
}

/** Near infrared and red where there are such (vegetation), else the first two. */
function firstTwo(channels) {
  const pair = [nearest(channels, 0.84), nearest(channels, 0.66)];
  return pair.includes(-1) || pair[0] === pair[1] ? [0, 1] : pair;
}
