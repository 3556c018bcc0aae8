/** Files of what was found in images, as downloads. */

import { download } from "shared/dom.js";
import type { ModelInfo } from "../../engine";
import type { ImageEntry } from "../images";
import type { LabelledObject } from "../labels";
import { type CocoImage, cocoDocument } from "./coco";
import { labelImage } from "./label_image";
import { encodePng } from "./png";
import { type TableImage, tableCsv } from "./table_csv";
import { zipped, type ZippedFile } from "./zip";

/** An image with the objects that are saved of it. */
export interface Results extends ImageEntry {
  readonly objects: readonly LabelledObject[];
}

/** A mask of the numbers of the objects for each image. */
export async function maskFiles(images: readonly Results[]): Promise<ZippedFile[]> {
  const files: ZippedFile[] = [];
  for (const { stem, size, objects } of images) {
    const labels = labelImage(objects, size!);
    files.push({ name: `${stem}_objects.png`, bytes: await encodePng(labels, size!.width, size!.height) });
  }
  return files;
}

/** The class map of each image that has one. */
export async function classMapFiles(images: readonly ImageEntry[]): Promise<ZippedFile[]> {
  const files: ZippedFile[] = [];
  for (const { stem, classMap } of images) {
    if (!classMap) continue;
    files.push({ name: `${stem}_classes.png`, bytes: await encodePng(classMap.labels, classMap.width, classMap.height) });
  }
  return files;
}

export function cocoFile(images: readonly Results[], info: ModelInfo): ZippedFile {
  return textFile("coco.json", JSON.stringify(cocoDocument(images.map(cocoImage), namesOf(info))));
}

function cocoImage({ name, size, objects, measured }: Results): CocoImage {
  const measurementsOf: CocoImage["measurementsOf"] = ({ mask }) => {
    const numbers = measured?.rows.get(mask) ?? [];
    const pairs = numbers.map((value, index) => [measured!.columns[index].name, Number.isFinite(value) ? value : null]);
    return Object.fromEntries(pairs);
  };
  return { fileName: name, size: size!, objects, measurementsOf };
}

export function tableFile(images: readonly Results[], info: ModelInfo): ZippedFile {
  const tables: TableImage[] = [];
  for (const { stem, objects, measured } of images) {
    if (!objects.length) continue;
    if (measured?.columns.length) tables.push({ name: stem, objects, columns: measured.columns, rows: measured.rows });
    else tables.push(areasAlone(stem, objects));
  }
  return textFile("objects.csv", tableCsv(tables, namesOf(info)));
}

/** The table of objects that could not be measured. */
function areasAlone(name: string, objects: readonly LabelledObject[]): TableImage {
  const rows = new Map(objects.map(({ mask }) => [mask, [mask.area]]));
  return { name, objects, columns: [{ name: "area", unit: "px" }], rows };
}

/** Download a file, or several in a zip; returns its name. */
export function downloadFiles(files: readonly ZippedFile[], zipName: string): string {
  const isSingle = files.length === 1;
  const blob = isSingle ? new Blob([files[0].bytes as Uint8Array<ArrayBuffer>]) : zipped(files);
  const name = isSingle ? files[0].name : zipName;
  download(name, blob);
  return name;
}

function namesOf(info: ModelInfo): Map<number, string> {
  const names = new Map<number, string>();
  for (const [value, { name }] of info.classes) names.set(value, name);
  return names;
}

function textFile(name: string, text: string): ZippedFile {
  return { name, bytes: new TextEncoder().encode(text) };
}
