/** The wipe: right of the pointer, the image is shown in another way, such as by another sensor. */

import { app } from "./app.js";
import { say } from "./attempt.js";
import { displayOf } from "./display.js";
import { Raster } from "./raster.js";
import { byId, element } from "./shared/dom.js";
import { describe } from "./show.js";

export class Wipe {
  /**
   * @param onchange called when the image is to be drawn again
   * @param shown () => indices of the channels that are shown left of the pointer
   */
  constructor(onchange, shown) {
    Object.assign(this, { onchange, shown });
    this.views = []; // {name, channels: one, or three shown as red, green and blue}
    this.chosen = null; // the view that was chosen last
    this.raster = null; // tiles of that view while it is shown
    this.select = byId("wipe");
    this.select.addEventListener("change", ({ target }) => {
      if (target.value === "") this.#close();
      else this.#open(this.views[target.value]);
      this.onchange();
    });
  }

  /** Show another image; the wipe stays where it has the same view. */
  setImage(image) {
    const open = this.raster !== null;
    this.#close();
    this.image = image;
    const sensors = image.sensors.length > 1 ? image.sensors : [];
    const channels = image.channels.map((channel, at) => ({ name: describe(channel), channels: [at] }));
    this.views = [...sensors, ...channels];
    const options = this.views.map(({ name }, at) => element("option", { value: String(at) }, name));
    this.select.replaceChildren(element("option", { value: "" }, "off"), ...options);
    byId("wipe-label").hidden = image.channels.length < 2;
    this.chosen = this.views.find(({ name }) => name === this.chosen?.name) ?? null;
    if (open && this.chosen) this.#open(this.chosen);
  }

  toggle() {
    if (this.raster) this.#close();
    else if (this.image.channels.length > 1) this.#open(this.chosen ?? this.#other());
    this.onchange();
  }

  /** The first view of other channels than those on the left. */
  #other() {
    const shown = this.shown();
    return this.views.find(({ channels }) => !channels.some((channel) => shown.includes(channel))) ?? this.views[0];
  }

  #open(view) {
    this.#close();
    this.chosen = view;
    this.display = displayOf(this.image.channels, view.channels);
    this.raster = new Raster(this.image, this.onchange, say, () => app.gone);
    this.select.value = String(this.views.indexOf(view));
  }

  #close() {
    this.raster?.close();
    this.raster = null;
    this.select.value = "";
  }

  /** What the canvas draws right of the pointer, or null. */
  get scene() {
    return this.raster && { raster: this.raster, display: this.display, name: this.chosen.name };
  }
}
