/** How the image is shown: channels, colours, and the values from darkest to brightest. */

import { byId, element } from "shared/dom.js";
import { decimals } from "shared/numbers.js";
import type { Place } from "shared/masks.js";
import type { OpenedImage } from "../engine";
import type { ColourMap } from "./colours";
import { ColourBar } from "./colour_bar";
import { type Display, displayOf, type Limits, wholeRange } from "./display";
import { setText } from "./dom";
import { channelTitle, shownUnit } from "./numbers";
import type { Workspace } from "./workspace";

const COLOUR_NAMES = ["Red", "Green", "Blue"];
const MOST_IN_READOUT = 4;

export class DisplayPanel {
  #bar: ColourBar;
  #shown: Display | null = null;
  #opened: OpenedImage | null = null;

  constructor(readonly workspace: Workspace) {
    this.#bar = new ColourBar(byId("colour-bar"), workspace);
    const { channels } = workspace.engine.info;
    const mode = byId<HTMLSelectElement>("mode");
    mode.append(element("option", { value: "one" }, "One channel"));
    if (channels.length >= 2) mode.append(element("option", { value: "three" }, "Red, green, blue"));
    byId("mode-field").hidden = channels.length < 2;
    mode.addEventListener("change", () => this.#choose(mode.value === "one" ? [0] : [0, 1, Math.min(2, channels.length - 1)]));
    const map = byId<HTMLSelectElement>("map");
    map.addEventListener("change", () => workspace.set({ display: { ...workspace.display!, map: map.value as ColourMap } }));
    byId("percentiles").addEventListener("click", () => this.fitValues());
    byId("whole-range").addEventListener("click", () => this.showAllValues());
    for (const [end, id] of ["low", "high"].entries()) {
      const field = byId<HTMLInputElement>(id);
      field.addEventListener("change", () => this.#typed(end, field.valueAsNumber));
    }
    workspace.onChange(() => this.#show());
  }

  /** From the 2nd to the 98th percentile. */
  fitValues(): void {
    if (this.workspace.display) this.#choose(this.workspace.display.channels);
  }

  showAllValues(): void {
    const { opened, display } = this.workspace;
    if (opened && display) this.workspace.set({ display: wholeRange(opened, display) });
  }

  /** Show the values under the pointer. */
  hover(place: Place | null): void {
    const { opened } = this.workspace;
    const readout = byId("readout");
    const isInside = opened && place && place.x >= 0 && place.y >= 0 && place.x < opened.width && place.y < opened.height;
    readout.hidden = !isInside;
    if (!isInside) {
      this.#bar.mark(null);
      return;
    }
    const x = Math.floor(place.x);
    const y = Math.floor(place.y);
    const values = opened.planes.map((plane) => plane[y * opened.width + x]);
    const shown = this.workspace.display!.channels;
    const order = [...shown, ...values.keys()].filter((channel, index, all) => all.indexOf(channel) === index);
    const texts = order.slice(0, MOST_IN_READOUT).map((channel) => this.#valueText(channel, values[channel]));
    setText(readout, `${x}, ${y}   ${texts.join("   ")}`);
    this.#bar.mark(shown.length === 1 ? values[shown[0]] : null);
  }

  #valueText(index: number, value: number): string {
    const channel = this.workspace.engine.info.channels[index];
    const { unit, factor, offset } = shownUnit(channel);
    if (Number.isNaN(value)) return `${channel.name} not measured`;
    const at = this.workspace.display!.channels.indexOf(index);
    const limits = this.workspace.display!.limits[at];
    const range = limits ? factor * (limits[1] - limits[0]) : value;
    return `${channel.name} ${decimals(factor * value + offset, range)} ${unit}`;
  }

  #choose(channels: readonly number[]): void {
    const { opened, display, engine } = this.workspace;
    if (!opened || !display) return;
    this.workspace.set({ display: displayOf(opened, engine.info.channels, channels, display.map) });
  }

  /** A limit was typed, in the shown unit. */
  #typed(end: number, typed: number): void {
    const { display, engine } = this.workspace;
    if (!display || !Number.isFinite(typed)) return;
    const { factor, offset } = shownUnit(engine.info.channels[display.channels[0]]);
    const limits: [number, number] = [...display.limits[0]];
    limits[end] = (typed - offset) / factor;
    if (limits[0] < limits[1]) this.workspace.set({ display: { ...display, limits: [limits as Limits] } });
    else this.#shown = null; // write the limits that are in force again
    this.workspace.changed();
  }

  #show(): void {
    const { display, images, opened } = this.workspace;
    byId("side-panel").hidden = !images.length;
    if (opened !== this.#opened) this.hover(null); // the values under the pointer were those of another image
    this.#opened = opened;
    if (!display || display === this.#shown) return;
    this.#shown = display;
    const isSingle = display.channels.length === 1;
    byId<HTMLSelectElement>("mode").value = isSingle ? "one" : "three";
    byId<HTMLSelectElement>("map").value = display.map;
    byId("map-field").hidden = !isSingle;
    byId("limits").hidden = !isSingle;
    byId("colour-bar").hidden = !isSingle;
    this.#showChannels(display);
    if (isSingle) this.#showLimits(display);
    this.#bar.draw();
  }

  #showChannels(display: Display): void {
    const { channels } = this.workspace.engine.info;
    const fields = display.channels.map((shown, index) => {
      const options = channels.map((channel, value) => element("option", { value }, channelTitle(channel)));
      const select = element("select", {}, ...options);
      select.value = String(shown);
      select.addEventListener("change", () => {
        const changed = [...display.channels];
        changed[index] = Number(select.value);
        this.#choose(changed);
      });
      const name = display.channels.length === 1 ? "Channel" : COLOUR_NAMES[index];
      return element("label", { class: "field" }, `${name} `, select);
    });
    byId("channel-fields").replaceChildren(...(channels.length === 1 ? [] : fields));
  }

  #showLimits(display: Display): void {
    const [low, high] = display.limits[0];
    const { unit, factor, offset } = shownUnit(this.workspace.engine.info.channels[display.channels[0]]);
    const range = factor * (high - low);
    byId<HTMLInputElement>("low").value = decimals(factor * low + offset, range);
    byId<HTMLInputElement>("high").value = decimals(factor * high + offset, range);
    setText(byId("limits-unit"), unit);
  }
}
