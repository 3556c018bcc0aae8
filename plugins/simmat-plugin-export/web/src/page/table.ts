/** The table of the objects of the open image; it follows the selection, and selects. */

import { byId, element, revealIn, swatch } from "shared/dom.js";
import { decimals } from "shared/numbers.js";
import { AREA_UNITS, compareValues, drawHead, type Head, HINTS, rowAfterKey, sortedBy, type Sorting, STATISTICS } from "shared/table.js";
import type { Channel, FoundMask } from "../engine";
import { colourOfObject } from "./colours";
import { setText } from "./dom";
import type { LabelledObject } from "./labels";
import { count, fourDigits, shownUnit } from "./numbers";
import type { Workspace } from "./workspace";

/** A column that is shown, and its value of an object. */
interface Column extends Head {
  value(object: LabelledObject): number | string;
  text(object: LabelledObject): string;
}

export class ObjectTable {
  #sorting: Sorting = { by: "number", isFalling: false };
  #isOpen = true;
  #order: LabelledObject[] = [];
  #drawn: readonly unknown[] = [];
  #revealed: number | null = null;
  #table = byId<HTMLTableElement>("table");

  constructor(readonly workspace: Workspace, readonly reveal: (mask: FoundMask) => void) {
    byId("table-toggle").addEventListener("click", () => this.toggle());
    this.#table.addEventListener("click", ({ target }) => {
      const row = (target as Element).closest<HTMLElement>("tbody tr");
      if (row) this.#select(Number(row.dataset.number));
    });
    this.#table.addEventListener("keydown", (event) => this.#key(event));
    workspace.onChange(() => this.#show());
  }

  toggle(): void {
    this.#isOpen = !this.#isOpen;
    this.workspace.changed();
  }

  #show(): void {
    const { objects } = this.workspace.labels;
    byId("table-panel").hidden = !objects.length || !this.workspace.hasImage;
    byId("table-scroll").hidden = !this.#isOpen;
    setText(byId("table-toggle"), this.#isOpen ? "Hide table" : "Show table");
    byId("table-toggle").setAttribute("aria-expanded", String(this.#isOpen));
    const shown = this.workspace.shownObjects.length;
    const hidden = objects.length - shown;
    const text = count(shown, "object") + (hidden ? `, ${hidden} below the least score` : "");
    setText(byId("table-text"), this.workspace.isMeasuring ? `${text}, measuring …` : text);
    if (!this.#isOpen) return;
    const columns = this.#columns();
    const drawn = [objects, this.workspace.leastScore, this.workspace.current?.measured, this.workspace.display?.channels[0], this.#sorting];
    if (drawn.some((value, index) => value !== this.#drawn[index])) {
      this.#drawn = drawn;
      this.#sort(columns);
      drawHead(this.#table, columns, this.#sorting, (column) => this.#sortBy(column));
      this.#drawRows(columns);
    }
    this.#showSelection();
  }

  #columns(): Column[] {
    const { info } = this.workspace.engine;
    const columns: Column[] = [
      { key: "number", title: "Object", hint: "", isText: false, value: ({ number }) => number, text: ({ number }) => String(number) },
      { key: "score", title: "Score", hint: "Predicted IoU", isText: false, value: ({ mask }) => mask.score, text: ({ mask }) => (Number.isNaN(mask.score) ? "painted" : mask.score.toFixed(2)) },
    ];
    if (info.classes.size) {
      const nameOf = ({ mask }: LabelledObject) => (mask.classId === undefined ? "–" : (info.classes.get(mask.classId)?.name ?? String(mask.classId)));
      columns.push({ key: "class", title: "Class", hint: "", isText: true, value: nameOf, text: nameOf });
    }
    columns.push({ key: "area", title: "Area [px]", hint: "", isText: false, value: ({ mask }) => mask.area, text: ({ mask }) => fourDigits(mask.area) });
    return [...columns, ...this.#measuredColumns()];
  }

  /** The area in other units, and the statistics of the channel that is shown. */
  #measuredColumns(): Column[] {
    const measured = this.workspace.current?.measured;
    const channel = this.workspace.engine.info.channels[this.workspace.display?.channels[0] ?? 0];
    const [low, high] = this.workspace.display?.limits[0] ?? [0, 1];
    const range = (shownUnit(channel).factor * (high - low)) / 10; // one digit more than of a pixel
    const columns: Column[] = [];
    measured?.columns.forEach(({ name }, index) => {
      const shown = shownColumn(name, channel);
      if (!shown) return;
      const { title, hint, factor, offset } = shown;
      const value = ({ mask }: LabelledObject) => factor * (measured.rows.get(mask)?.[index] ?? NaN) + offset;
      const isAreaUnknown = name in AREA_UNITS && ![...measured.rows.values()].some((row) => Number.isFinite(row[index]));
      const textOf = (number: number) => (name in AREA_UNITS ? fourDigits(number) : decimals(number, range));
      if (!isAreaUnknown) columns.push({ key: name, title, hint, isText: false, value, text: (object) => textOf(value(object)) });
    });
    return columns;
  }

  #sort(columns: readonly Column[]): void {
    const column = columns.find(({ key }) => key === this.#sorting.by) ?? columns[0];
    const sign = this.#sorting.isFalling ? -1 : 1;
    const compare = (one: LabelledObject, other: LabelledObject) => compareValues(column.value(one), column.value(other), sign) || one.number - other.number;
    this.#order = [...this.workspace.shownObjects].sort(compare);
  }

  #sortBy({ key, isText }: Head): void {
    this.#sorting = sortedBy(this.#sorting, key, isText || key === "number");
    this.workspace.changed();
  }

  #drawRows(columns: readonly Column[]): void {
    const { info } = this.workspace.engine;
    const rows = this.#order.map((object) => {
      const cells = columns.map(({ isText, text }) => element("td", { class: isText ? "text" : "" }, text(object)));
      cells[0].prepend(swatch(colourOfObject(info, object.mask, object.number)));
      const row = element("tr", { id: `row-${object.number}` }, ...cells);
      row.dataset.number = String(object.number);
      return row;
    });
    this.#table.tBodies[0].replaceChildren(...rows);
    this.#table.setAttribute("aria-rowcount", String(rows.length + 1));
  }

  #showSelection(): void {
    const { selected } = this.workspace;
    for (const row of this.#table.tBodies[0].rows) row.setAttribute("aria-selected", String(row.dataset.number === String(selected)));
    this.#table.setAttribute("aria-activedescendant", selected === null ? "" : `row-${selected}`);
    const row = document.getElementById(`row-${selected}`);
    if (row && selected !== this.#revealed) revealIn(byId("table-scroll"), row, this.#table.tHead!.offsetHeight);
    this.#revealed = selected;
  }

  #select(number: number): void {
    if (this.workspace.labels.draft) return; // it is accepted or discarded first
    this.workspace.set({ selected: number });
    const object = this.workspace.selectedObject;
    if (object) this.reveal(object.mask);
  }

  #key(event: KeyboardEvent): void {
    if (event.target !== this.#table) return;
    const at = this.#order.findIndex(({ number }) => number === this.workspace.selected);
    const row = rowAfterKey(event, at, this.#order.length);
    if (row !== undefined) this.#select(this.#order[row].number);
  }
}

/** How a column of `simmat measure` is shown; null if it is not. */
function shownColumn(name: string, channel: Channel): { title: string; hint: string; factor: number; offset: number } | null {
  if (name in AREA_UNITS) return { title: `Area [${AREA_UNITS[name]}]`, hint: "", factor: 1, offset: 0 };
  const [statistic, ofChannel] = splitOnce(name, "-");
  if (!(statistic in STATISTICS) || !ofChannel.startsWith(`${channel.name} [`)) return null;
  const { unit, factor, offset } = shownUnit(channel);
  const isDifference = statistic === "intensity_contrast";
  const title = unit ? `${STATISTICS[statistic]} [${unit}]` : STATISTICS[statistic];
  return { title, hint: HINTS[statistic] ?? "", factor, offset: isDifference ? 0 : offset };
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + separator.length)];
}
