/** The table of objects as `simmat measure` writes it. */

import type { FoundMask, Measurements } from "../../engine";
import type { LabelledObject } from "../labels";

export interface TableImage {
  /** Name of the image, without ending. */
  name: string;
  objects: readonly LabelledObject[];
  columns: Measurements["columns"];
  rows: ReadonlyMap<FoundMask, readonly number[]>;
}

const HEAD = ["image", "label", "class", "class_name", "score"];

/** Images need the same columns; fails where they have other ones. */
export function tableCsv(images: readonly TableImage[], classNames: ReadonlyMap<number, string>): string {
  const columns = images[0]?.columns.map((column) => column.name) ?? [];
  const lines = [line([...HEAD, ...columns])];
  for (const image of images) {
    const own = image.columns.map((column) => column.name);
    if (own.join() !== columns.join()) {
      throw new Error(`${image.name} has other columns than ${images[0].name}, so one table cannot hold both. Save them one after the other.`);
    }
    for (const { number, mask } of image.objects) {
      const { classId } = mask;
      const className = classId === undefined ? "" : (classNames.get(classId) ?? "");
      const numbers = image.rows.get(mask) ?? columns.map(() => NaN);
      lines.push(line([asPath(image.name), number, classId ?? "", asText(className), cell(mask.score), ...numbers.map(cell)]));
    }
  }
  return lines.join("");
}

/** Ten digits of a number, nothing where nothing was measured. */
export function cell(value: number): string {
  if (!Number.isFinite(value)) return "";
  return String(Number(value.toPrecision(10)));
}

/** What a text begins with that a spreadsheet runs as a formula. */
const FORMULA = /^[=+\-@\t\r]/;

/** The path of a file so that no spreadsheet runs it: "./=a.png" is the same path. */
function asPath(name: string): string {
  return FORMULA.test(name) ? `./${name}` : name;
}

/** A text so that no spreadsheet runs it, as `simmat measure` writes it. */
function asText(text: string): string {
  return FORMULA.test(text.replace(/^'+/, "")) ? `'${text}` : text;
}

function line(values: readonly (string | number)[]): string {
  const quoted = values.map((value) => {
    const text = String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  });
  return `${quoted.join(",")}\n`;
}
