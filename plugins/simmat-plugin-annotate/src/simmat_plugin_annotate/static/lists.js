/** The lists of images, classes and objects. */

import { colourOfNumber } from "./shared/colours.js";
import { byId, element, revealIn, swatch } from "./shared/dom.js";

const SHOWN = 1000; // rows in the page at once

/** Put other rows into a list; what has the keyboard's focus and what is scrolled to stays. */
export function replaceRows(list, rows) {
  const scrolled = list.scrollTop;
  const focused = document.activeElement;
  const id = list.contains(focused) ? focused.dataset.row : undefined;
  list.replaceChildren(...rows);
  list.scrollTop = scrolled;
  if (id !== undefined) [...list.querySelectorAll("button")].find((button) => button.dataset.row === id)?.focus();
}

export class Lists {
  /** @param act what rows do: open(key), select(id), drawTrack(id, class), pick(class id), rename(class id, name or null to remove it) */
  constructor(app, act) {
    Object.assign(this, { app, act });
    this.images = [];
    this.rows = new Map();
    this.renaming = null; // id of the class whose name is being typed
    byId("filter").addEventListener("input", () => this.showImages());
    byId("filter-state").addEventListener("change", () => this.showImages());
  }

  setImages(images) {
    this.images = images;
    this.showImages();
  }

  find(key) {
    return this.images.find((image) => image.key === key);
  }

  first() {
    return (this.images.find((image) => !image.done && !image.labelled && !image.problem) ?? this.images[0])?.key ?? null;
  }

  /** Key of a random image without labels, except the open one: neighbours in a list are often alike. */
  random() {
    const left = this.images.filter((image) => !image.labelled && !image.problem && image.key !== this.app.image?.key);
    return left[Math.floor(Math.random() * left.length)]?.key ?? null;
  }

  #passes(image) {
    const text = byId("filter").value.toLowerCase();
    const states = { all: true, open: !image.done, new: !image.labelled, labelled: image.labelled, done: image.done, model: image.of_model !== 0 };
    return states[byId("filter-state").value] && image.name.toLowerCase().includes(text);
  }

  /** Key of the image before (-1) or after (1) another one, of those that the filter lets through; null at the end. */
  neighbour(by, key = this.app.image?.key) {
    const at = this.images.findIndex((image) => image.key === key);
    for (let i = at + by; i >= 0 && i < this.images.length; i += by) {
      if (this.#passes(this.images[i]) && !this.images[i].problem) return this.images[i].key;
    }
    return null;
  }

  update(key, state) {
    const image = this.find(key);
    if (!image) return;
    Object.assign(image, state);
    const row = this.rows.get(key);
    if (row) {
      const made = this.#row(image);
      row.replaceWith(made);
      this.rows.set(key, made);
    }
    this.#count();
  }

  #count() {
    const labelled = this.images.filter((image) => image.labelled).length;
    const done = this.images.filter((image) => image.done).length;
    const passing = this.images.filter((image) => this.#passes(image)).length;
    const filtered = passing < this.images.length ? `${passing} of ` : "";
    const all = `${this.images.length} image${this.images.length === 1 ? "" : "s"}`;
    const bad = this.images.filter((image) => image.problem).length;
    byId("counts").textContent = `${filtered}${all}, ${labelled} labelled, ${done} done${bad ? `, ${bad} cannot be opened` : ""}`;
  }

  showImages() {
    this.rows.clear();
    const passing = this.images.filter((image) => this.#passes(image));
    const at = passing.findIndex((image) => image.key === this.app.image?.key);
    const from = Math.max(0, Math.min(passing.length - SHOWN, at - SHOWN / 2));
    const rows = passing.slice(from, from + SHOWN).map((image) => {
      const row = this.#row(image);
      this.rows.set(image.key, row);
      return row;
    });
    if (passing.length > SHOWN) {
      rows.push(element("li", { class: "quiet" }, `… ${passing.length - SHOWN} more: filter by name`));
    }
    replaceRows(byId("images"), rows);
    this.#count();
    this.markOpen(this.app.image?.key);
  }

  #row(image) {
    const { name, split, labelled, done, objects, problem, predicted, of_model: ofModel } = image;
    const mark = ofModel === 0 ? "" : " ◇";
    const state = problem ? "✕" : done ? `✓ ${objects ?? ""}${mark}` : labelled ? `● ${objects ?? ""}${mark}` : predicted ? `◇ ${predicted}` : "○";
    const meaning = done ? "done" : labelled ? "labelled, not done" : predicted ? `no labels, ${predicted} predictions` : "no labels";
    const title = problem ? `${name} cannot be opened: ${problem}` : `${name}: ${meaning}${objects ? `, ${objects} objects` : ""}${mark ? ", with some that a model found: not for validation" : ""}${split ? `, ${split}` : ""}`;
    const button = element(
      "button",
      { title, onclick: () => this.act.open(image.key) },
      this.#thumbnail(image),
      element("span", { class: "label" }, name),
      element("span", { class: "state" }, state),
    );
    button.dataset.row = image.key;
    if (image.key === this.app.image?.key) button.setAttribute("aria-current", "true");
    return element("li", {}, button);
  }

  /** A small picture that is asked for when it comes into view. */
  #thumbnail({ key, problem }) {
    if (problem) return null;
    const src = `/api/images/${key}/thumbnail?v=${this.app.session.session}`;
    const made = element("img", { loading: "lazy", fetchPriority: "low", alt: "", width: 40, height: 30, src });
    made.addEventListener("error", () => made.classList.add("missing"));
    return made;
  }

  markOpen(key) {
    for (const [other, row] of this.rows) {
      if (other === key) row.firstChild.setAttribute("aria-current", "true");
      else row.firstChild.removeAttribute("aria-current");
    }
    const row = this.rows.get(key);
    if (row) revealIn(byId("images"), row);
    else if (key && this.images.length > SHOWN && this.#passes(this.find(key))) {
      this.rows.set(key, element("li"));
      this.showImages();
    }
  }

  showClasses(now) {
    if (this.renaming !== null && byId("classes").querySelector("form")) return;
    const { session } = this.app;
    const rows = session.classes.map((known, i) => this.#classRow(known.id, known.name, i, now === known.id));
    if (rows.length) rows.push(this.#classRow(null, session.model.knows_classes ? "the model's" : "no class", -1, now === null));
    replaceRows(byId("classes"), rows);
    byId("classes").querySelector("form input")?.focus();
    byId("class-hint").textContent = session.classes.length ? "" : "none yet";
  }

  #classRow(id, name, position, pressed) {
    if (id !== null && id === this.renaming) return this.#renameRow(id, name, pressed);
    const key = position < 0 ? "0" : position < 9 ? String(position + 1) : "";
    const button = element(
      "button",
      { title: name, onclick: () => this.act.pick(id) },
      this.#swatch(id),
      element("span", { class: "label" }, name),
      key ? element("kbd", {}, key) : null,
    );
    button.setAttribute("aria-pressed", String(pressed));
    button.dataset.row = String(id);
    if (id === null) return element("li", {}, button);
    const rename = element("button", { class: "quiet", title: `Rename or remove ${name}`, "aria-label": `Rename or remove ${name}` }, "✎");
    rename.addEventListener("click", () => {
      this.renaming = id;
      this.showClasses(pressed ? id : undefined);
    });
    return element("li", { class: "row" }, button, rename);
  }

  #renameRow(id, name, pressed) {
    const input = element("input", { value: name, maxLength: 80, "aria-label": `New name of ${name}` });
    const end = (text) => {
      this.renaming = null;
      byId("classes").querySelector("form").remove();
      if (text === undefined || text === name) this.showClasses(pressed ? id : undefined);
      else this.act.rename(id, text);
    };
    const drop = element("button", { type: "button", onclick: () => end(null) }, "Remove");
    const form = element("form", { class: "row" }, input, element("button", {}, "Rename"), drop);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      end(input.value.trim() || undefined);
    });
    input.addEventListener("focus", () => input.select());
    input.addEventListener("keydown", (event) => event.key === "Escape" && end());
    return element("li", {}, form);
  }

  /** The colour of a class; while there are none, that of the object of a number. */
  #swatch(id, number) {
    const { classes } = this.app.session;
    const own = number === undefined || classes.length ? undefined : colourOfNumber(number);
    const colour = classes.find((item) => item.id === id)?.colour ?? own;
    if (colour) return swatch(colour);
    return element("span", { class: id === null ? "swatch none" : "swatch" });
  }

  showObjects() {
    const { labels, selected, session } = this.app;
    if (!labels) return;
    const objects = [...labels.objects.values()].sort((a, b) => b.id - a.id);
    byId("object-count").textContent = String(objects.length);
    const rows = objects.slice(0, SHOWN).map((object) => {
      const known = session.classes.find((item) => item.id === object.class);
      const name = known?.name ?? (object.class === null ? "object" : `class ${object.class}`);
      const button = element(
        "button",
        { title: name, onclick: () => this.act.select(object.id) },
        this.#swatch(object.class, object.id),
        element("span", { class: "label" }, `${object.id} ${name}`),
        element("span", { class: "state" }, `${object.predicted ? "◇ " : ""}${object.score === null ? "" : `${object.score.toFixed(2)} · `}${object.area} px`),
      );
      button.setAttribute("aria-pressed", String(object.id === selected));
      button.dataset.row = String(object.id);
      return element("li", {}, button);
    });
    if (objects.length > SHOWN) {
      const left = `… ${objects.length - SHOWN} more, the oldest: Shift+click them in the image`;
      rows.push(element("li", { class: "quiet" }, left));
    }
    for (const [id, known] of [...labels.tracks].filter(([id]) => !labels.objects.has(id)).slice(0, SHOWN)) {
      const title = "Draw this object of other frames here";
      const state = element("span", { class: "state" }, labels.lost.includes(id) ? "lost here" : "not here");
      const draw = { title, onclick: () => this.act.drawTrack(id, known) };
      rows.push(element("li", {}, element("button", draw, this.#swatch(known, id), element("span", { class: "label quiet" }, String(id)), state)));
    }
    replaceRows(byId("objects"), rows);
    const row = selected === null ? null : byId("objects").querySelector('[aria-pressed="true"]');
    if (row) revealIn(byId("objects"), row);
  }
}
