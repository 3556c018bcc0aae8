/** The table of the objects of the open image: areas, and the values of a channel as `simmat measure` finds them. */

import { getText, post } from "./api.js";
import { app, classes, colourOfObject } from "./app.js";
import { attempt, say } from "./attempt.js";
import { cssOf } from "./shared/colours.js";
import { byId, download, element, setPressed, swatch } from "./shared/dom.js";
import { decimals } from "./shared/numbers.js";
import { AREA_UNITS, compareValues, drawHead, HINTS, rowAfterKey, sortedBy, STATISTICS } from "./shared/table.js";

const ROW_PX = 24; // as in style.css
const AT_ONCE = 100; // objects of one request
const TITLES = { id: "Object", class: "Class", area: "Area [px]" };
const UNMEASURED = Object.keys(TITLES); // columns that the page knows by itself

export class MeasureTable {
  /** @param choose called with the id of the object of a chosen row */
  constructor(choose) {
    this.choose = choose;
    this.shown = false;
    this.sorting = { by: "id", isFalling: true }; // the newest object first, as in the list of objects
    this.list = byId("measures-rows");
    this.table = byId("measures-table");
    this.channel = byId("measured-channel");
    this.#clear();
    this.list.addEventListener("scroll", () => this.#scrolled());
    new ResizeObserver(() => this.#scrolled()).observe(this.list);
    this.table.tBodies[0].addEventListener("click", ({ target }) => {
      const { id } = target.closest("tr").dataset;
      if (id) this.choose(Number(id));
    });
    this.table.addEventListener("keydown", (event) => this.#key(event));
    this.channel.addEventListener("change", () => {
      this.#clear();
      this.show();
    });
    byId("copy-table").addEventListener("click", () => attempt(() => this.#copy(), "Measuring every object …"));
    byId("save-table").addEventListener("click", () => attempt(() => this.#save(), "Measuring every object …"));
  }

  #clear() {
    this.rows = new Map(); // id -> {version of the labels, values by column}
    this.area = null; // column of the area in m² or µm²
    this.warning = "";
    this.order = []; // ids
    this.ordered = ""; // what the order was made for
    this.revealed = null; // id of the row that was scrolled to last
  }

  /** Show another image; the chosen channel stays where the image has it. */
  setImage(image) {
    const names = image.channels.map((channel) => `${channel.name}${unitOf(channel)}`);
    let chosen = names.indexOf(this.channel.selectedOptions[0]?.text);
    if (chosen < 0) chosen = image.channels.findIndex((channel) => channel.quantity !== "srgb"); // colours tell little
    this.channel.replaceChildren(...names.map((name, at) => element("option", { value: String(at) }, name)));
    this.channel.value = String(Math.max(0, chosen));
    this.#clear();
  }

  toggle() {
    this.shown = !this.shown;
    byId("measures").hidden = !this.shown;
    setPressed(byId("measure"), this.shown);
    this.show();
  }

  /** Bring the table up to date with the labels and the selection, and ask for numbers that are missing. */
  show() {
    if (!this.shown || !app.labels) return;
    this.#sort();
    this.#drawHead();
    this.#reveal();
    this.#drawRows();
    this.#ask();
  }

  #scrolled() {
    if (!this.shown || !app.labels) return;
    this.#drawRows();
    this.#ask();
  }

  get #columns() {
    const area = this.area ? [this.area] : [];
    return [...UNMEASURED, ...area, ...Object.keys(STATISTICS)];
  }

  /** Whether the numbers of an object are those of its present pixels. */
  #isFresh(id) {
    return this.rows.get(id)?.version === app.labels.version;
  }

  /** The value of an object in a column, NaN where it is not known. */
  #value(id, column) {
    const object = app.labels.objects.get(id);
    if (column === "class") return className(object);
    return UNMEASURED.includes(column) ? object[column] : (this.rows.get(id)?.values[column] ?? NaN);
  }

  /** Sort the objects; by a measured column again as soon as all are measured. */
  #sort() {
    const ids = [...app.labels.objects.keys()];
    const { by: column, isFalling } = this.sorting;
    const complete = UNMEASURED.includes(column) || ids.every((id) => this.#isFresh(id));
    const ordered = [app.labels.version, column, isFalling, complete].join();
    if (ordered === this.ordered) return;
    const values = new Map(ids.map((id) => [id, this.#value(id, column)]));
    const sign = isFalling ? -1 : 1;
    this.order = ids.sort((a, b) => compareValues(values.get(a), values.get(b), sign) || a - b);
    this.ordered = ordered;
    this.revealed = null;
  }

  #drawHead() {
    const unit = unitOf(app.image.channels[this.channel.value]);
    const heads = this.#columns.map((key) => ({
      key,
      title: TITLES[key] ?? (AREA_UNITS[key] ? `Area [${AREA_UNITS[key]}]` : `${STATISTICS[key]}${unit}`),
      hint: HINTS[key] ?? "",
      isText: key === "class",
    }));
    drawHead(this.table, heads, this.sorting, ({ key, isText }) => {
      this.sorting = sortedBy(this.sorting, key, isText);
      this.list.scrollTop = 0;
      this.show();
    });
  }

  /** First and last row in view. */
  get #inView() {
    const first = Math.floor(this.list.scrollTop / ROW_PX);
    return [first, first + Math.ceil(this.list.clientHeight / ROW_PX)];
  }

  #drawRows() {
    const [first, last] = this.#inView;
    const ids = this.order.slice(first, last);
    const above = element("tr", {}, element("td"));
    const below = element("tr", {}, element("td"));
    above.style.height = `${first * ROW_PX}px`;
    below.style.height = `${Math.max(0, this.order.length - last) * ROW_PX}px`;
    const rows = ids.map((id, i) => this.#row(id, first + i));
    this.table.tBodies[0].replaceChildren(...(first ? [above] : []), ...rows, ...(last < this.order.length ? [below] : []));
    this.table.setAttribute("aria-rowcount", String(this.order.length + 1));
    this.table.setAttribute("aria-activedescendant", ids.includes(app.selected) ? `measured-${app.selected}` : "");
    this.#drawText();
  }

  #row(id, at) {
    const object = app.labels.objects.get(id);
    const colour = cssOf(colourOfObject(object));
    const cells = this.#columns.map((column) => {
      if (column === "class") return element("td", { class: "text", title: className(object) }, swatch(colour), className(object));
      return element("td", {}, this.#text(id, column));
    });
    const row = element("tr", { id: `measured-${id}`, class: this.#isFresh(id) ? "" : "old" }, ...cells);
    row.dataset.id = String(id);
    row.setAttribute("aria-rowindex", String(at + 2));
    row.setAttribute("aria-selected", String(id === app.selected));
    return row;
  }

  #text(id, column) {
    if (UNMEASURED.includes(column)) return String(this.#value(id, column));
    if (!this.rows.has(id)) return "…";
    const value = this.#value(id, column);
        if (column === this.area) return decimals(value, value);
    const { range } = app.image.channels[this.channel.value];
    return decimals(value, range ? (range[1] - range[0]) / 5 : 1);
  }

  /** Say how far the measuring is where all objects are wanted, or what the files contradict. */
  #drawText() {
    const count = this.order.length;
    const measured = this.order.filter((id) => this.#isFresh(id)).length;
    const waits = !UNMEASURED.includes(this.sorting.by) && measured < count;
    const text = count ? this.warning : "No object yet.";
    byId("measures-text").textContent = waits ? `Measured ${measured} of ${count}, sorted after the last …` : text;
  }

  /** Scroll to the row of the selected object once. */
  #reveal() {
    const at = this.order.indexOf(app.selected);
    if (app.selected !== this.revealed && at >= 0) {
      const top = at * ROW_PX;
      const room = this.list.clientHeight - this.table.tHead.offsetHeight;
      this.list.scrollTop = Math.min(top, Math.max(this.list.scrollTop, top + ROW_PX - room));
    }
    this.revealed = app.selected;
  }

  /** Measure the objects in view, and all if the table is sorted by their numbers: some with each request. */
  async #ask() {
    if (this.asking || app.gone) return;
    const wanted = this.order.slice(...this.#inView);
    if (!UNMEASURED.includes(this.sorting.by)) wanted.push(...this.order);
    const ids = [...new Set(wanted)].filter((id) => !this.#isFresh(id)).slice(0, AT_ONCE);
    if (!ids.length) return;
    const { image } = app;
    const channel = this.channel.value;
    const { rows } = this;
    this.asking = true;
    let answer = null;
    try {
      answer = await post(`/api/images/${image.key}/measure`, { channel: Number(channel), ids });
    } catch (error) {
      say(error);
    }
    this.asking = false;
    if (rows !== this.rows) this.show(); // another image or channel meanwhile
    else if (answer) this.#take(answer);
  }

  #take({ version, columns, rows, warning }) {
    for (const [id, ...numbers] of rows) {
      const values = Object.fromEntries(columns.map((column, i) => [column, numbers[i]]));
      this.rows.set(id, { version, values });
    }
    this.area = columns.find((column) => AREA_UNITS[column]) ?? null;
    this.warning = warning;
    if (version > app.labels.version) this.#drawRows(); // the page learns of the edit of another tab in a moment
    else this.show();
  }

  #key(event) {
    const row = rowAfterKey(event, this.order.indexOf(app.selected), this.order.length);
    if (row !== undefined) this.choose(this.order[row]);
  }

  #csv() {
    return getText(`/api/images/${app.image.key}/objects.csv`);
  }

  async #copy() {
    if (!navigator.clipboard) throw new Error("This browser lets only pages of this machine copy: use Save CSV.");
    const text = this.#csv().then((csv) => new Blob([csv], { type: "text/plain" }));
    await navigator.clipboard.write([new ClipboardItem({ "text/plain": text })]);
  }

  async #save() {
    const { name } = app.image;
    download(`${name.replaceAll("/", "_")}.csv`, new Blob([await this.#csv()], { type: "text/csv" }));
  }
}

/** The sensor's own unit, as in the table of `simmat measure`. */
function unitOf({ unit }) {
  return unit === "1" ? "" : ` [${unit}]`;
}

function className(object) {
  const known = classes().find((item) => item.id === object.class);
  if (known) return known.name;
  return object.class === null ? "" : `class ${object.class}`;
}
