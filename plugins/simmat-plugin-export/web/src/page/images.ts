/** The images that were dropped on the page, each with its results, which stay while another is open. */

import type { Size } from "shared/masks.js";
import type { ClassMap, FoundMask, Measurements, ModelInfo } from "../engine";
import { History } from "./labels";
import type { SavedImage } from "./saving/reopen";

/** A class map, in as few bytes as its labels need. */
export interface StoredClassMap {
  readonly width: number;
  readonly height: number;
  readonly labels: Uint8Array | Uint16Array;
  /** The label value of pixels without a measurement. */
  readonly nodata: number;
}

/** Objects that were measured, and their numbers: a row of `numbers` for each mask. */
export interface Measured {
  readonly columns: Measurements["columns"];
  readonly rows: ReadonlyMap<FoundMask, readonly number[]>;
}

export interface ImageEntry {
  /** The file's name; no two images have the same. */
  readonly name: string;
  /** It without ending: begins the names of saved files. */
  readonly stem: string;
  readonly files: readonly File[];
  readonly history: History;
  /** Known since it was opened. */
  size: Size | null;
  /** Why it could not be opened. */
  error: string;
  classMap: StoredClassMap | null;
  /** Whether every object was looked for. */
  isSearched: boolean;
  measured: Measured | null;
  /** What was saved of it before, until it is opened. */
  saved: SavedImage | null;
}

export function hasResults(entry: ImageEntry): boolean {
  return entry.history.present.objects.length > 0 || entry.classMap !== null;
}

/** Fails for label values above 65535, which no PNG can hold. */
export function compacted({ width, height, labels, nodata }: ClassMap): StoredClassMap {
  let largest = 0;
  for (const label of labels) largest = Math.max(largest, label);
  if (largest > 0xffff) throw new Error(`The class map has the label ${largest}, but this page saves labels up to 65535.`);
  return { width, height, labels: largest > 0xff ? Uint16Array.from(labels) : Uint8Array.from(labels), nodata };
}

/** Sort dropped files into images that can be opened, and files that this model does not read. */
export function entriesOf(files: readonly File[], known: readonly ImageEntry[], info: ModelInfo): { entries: ImageEntry[]; foreign: File[] } {
  const isReadable = (file: File) => info.accepts.some((ending) => file.name.toLowerCase().endsWith(ending.toLowerCase()));
  const readable = files.filter(isReadable).sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  const foreign = files.filter((file) => !isReadable(file));
  const stems = new Set(known.map((entry) => entry.stem));
  const entries: ImageEntry[] = [];
  const filesOfImage = info.sources && info.sources.length > 1 ? [readable] : readable.map((file) => [file]);
  for (const group of filesOfImage) {
    if (!group.length) continue;
    const stem = uniqueStem(group[0].name, stems);
    stems.add(stem);
    entries.push(newEntry(group, stem));
  }
  return { entries, foreign };
}

function newEntry(files: readonly File[], stem: string): ImageEntry {
  return {
    name: stem + endingOf(files[0].name),
    stem,
    files,
    history: new History(),
    size: null,
    error: "",
    classMap: null,
    isSearched: false,
    measured: null,
    saved: null,
  };
}

function uniqueStem(fileName: string, taken: ReadonlySet<string>): string {
  const stem = fileName.slice(0, fileName.length - endingOf(fileName).length);
  let unique = stem;
  for (let number = 2; taken.has(unique); number += 1) unique = `${stem}_${number}`;
  return unique;
}

/** ".png" */
function endingOf(fileName: string): string {
  return /\.[^.]+$/.exec(fileName)?.[0] ?? "";
}

/** The files of a drop, also those in dropped folders. */
export async function droppedFiles(transfer: DataTransfer): Promise<File[]> {
  const entries: FileSystemEntry[] = [];
  for (const item of transfer.items) {
    const entry = item.webkitGetAsEntry?.();
    if (entry) entries.push(entry);
  }
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const files: File[] = [];
  for (const entry of entries) await collect(entry, files);
  return files;
}

async function collect(entry: FileSystemEntry, files: File[]): Promise<void> {
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    if (!file.name.startsWith(".")) files.push(file);
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return; // it gives a hundred at a time
    for (const one of some) await collect(one, files);
  }
}
