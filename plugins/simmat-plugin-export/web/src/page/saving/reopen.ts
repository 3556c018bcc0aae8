/** Objects that the page saved, read again: of a COCO json, or of the zip that holds one. */

import type { Size } from "shared/masks.js";
import type { FoundMask, ModelInfo } from "../../engine";
import type { LabelledObject } from "../labels";

/** The objects of an image as they were saved. */
export interface SavedImage {
  /** The file that holds them. */
  readonly origin: string;
  readonly fileName: string;
  readonly size: Size;
  readonly objects: readonly LabelledObject[];
}

const NO_CLASS = "object";

export function isSavedWork(file: File): boolean {
  return /\.(json|zip)$/i.test(file.name);
}

/** Fails with one sentence if the file is damaged, or of a model with other classes. */
export async function savedImages(file: File, info: ModelInfo): Promise<SavedImage[]> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const content = /\.zip$/i.test(file.name) ? await cocoOfZip(file.name, bytes) : bytes;
  let found: any;
  try {
    found = JSON.parse(new TextDecoder().decode(content));
  } catch {
    throw new Error(`${file.name} is damaged or no COCO json: it ends too early or holds other text. Nothing was changed.`);
  }
  try {
    return imagesOf(file.name, found, info);
  } catch (error) {
    if (error instanceof TypeError) throw new Error(`${file.name} is not COCO json as this page saves it. Nothing was changed.`);
    throw error;
  }
}

function imagesOf(origin: string, found: any, info: ModelInfo): SavedImage[] {
  const names = new Map<number, string>();
  for (const { id, name } of found.categories) names.set(id, name);
  const objectsOf = new Map<number, LabelledObject[]>();
  const images: SavedImage[] = [];
  const sizes = new Map<number, Size>();
  for (const { id, file_name: fileName, width, height } of found.images) {
    const objects: LabelledObject[] = [];
    const size = { width, height };
    objectsOf.set(id, objects);
    sizes.set(id, size);
    images.push({ origin, fileName: String(fileName), size, objects });
  }
  for (const annotation of found.annotations) {
    const objects = objectsOf.get(annotation.image_id);
    if (!objects) throw new Error(`${origin} is damaged: object ${annotation.id} belongs to no image. Nothing was changed.`);
    const mask = decoded(annotation, sizes.get(annotation.image_id)!, origin);
    const classId = classOf(annotation.category_id, names, info, origin);
    const number = annotation.label ?? objects.length + 1;
    objects.push({ number, mask: classId === null ? mask : { ...mask, classId }, prompt: null });
  }
  return images;
}

/** The class of a category, null for none. */
function classOf(category: number, names: ReadonlyMap<number, string>, info: ModelInfo, origin: string): number | null {
  const name = names.get(category);
  if (info.classes.get(category)?.name === name && name !== undefined) return category;
  if (name === NO_CLASS) return null;
  const known = [...info.classes].map(([value, one]) => `${value} ${one.name}`).join(", ") || "none";
  throw new Error(`${origin} has the class ${category} ${name ?? ""}, which this model does not have (its classes: ${known}). Nothing was changed.`);
}

function decoded(annotation: any, { width, height }: Size, origin: string): FoundMask {
  const { counts, size } = annotation.segmentation;
  const problem = new Error(`${origin}: the mask of object ${annotation.id} is damaged or no run lengths. Nothing was changed.`);
  if (!counts || size?.[0] !== height || size[1] !== width) throw problem;
  const runs = typeof counts === "string" ? decompressed(counts) : (counts as number[]);
  let left = width;
  let right = 0;
  let top = height;
  let bottom = 0;
  let end = 0;
  const spans: [number, number][] = [];
  for (const [index, run] of runs.entries()) {
    if (!(run >= 0)) throw problem;
    const start = end;
    end += run;
    if (index % 2 === 0 || run === 0) continue;
    spans.push([start, end]);
  }
  if (end !== width * height || !spans.length) throw problem;
  for (const [start, stop] of spans) {
    const first = Math.floor(start / height);
    const last = Math.floor((stop - 1) / height);
    left = Math.min(left, first);
    right = Math.max(right, last + 1);
    const isOneColumn = first === last;
    top = Math.min(top, isOneColumn ? start % height : 0);
    bottom = Math.max(bottom, isOneColumn ? ((stop - 1) % height) + 1 : height);
  }
  const inside = new Uint8Array((right - left) * (bottom - top));
  let area = 0;
  for (const [start, stop] of spans) {
    area += stop - start;
    for (let at = start; at < stop; at += 1) {
      inside[((at % height) - top) * (right - left) + Math.floor(at / height) - left] = 1;
    }
  }
  const score = typeof annotation.score === "number" ? annotation.score : NaN;
  return { x: left, y: top, width: right - left, height: bottom - top, inside, area, score };
}

/** The run lengths of COCO's text, see `compressed` in coco.ts. */
function decompressed(text: string): number[] {
  const runs: number[] = [];
  let at = 0;
  while (at < text.length) {
    let value = 0;
    let shift = 0;
    let bits = 0x20;
    while (bits & 0x20 && at < text.length) {
      bits = text.charCodeAt(at) - 48;
      value |= (bits & 0x1f) << shift;
      shift += 5;
      at += 1;
    }
    if (bits & 0x10 && shift < 32) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

/** The bytes of coco.json in a zip, also in one that was packed again by another program. */
async function cocoOfZip(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const damaged = new Error(`${name} is damaged or no zip. Nothing was changed.`);
  const view = new DataView(bytes.buffer);
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end -= 1;
  if (end < 0) throw damaged;
  let at = view.getUint32(end + 16, true);
  try {
    while (view.getUint32(at, true) === 0x02014b50) {
      const nameLength = view.getUint16(at + 28, true);
      const entry = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength));
      if (/(^|\/)coco\.json$/.test(entry)) {
        const local = view.getUint32(at + 42, true);
        const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
        const content = bytes.slice(start, start + view.getUint32(at + 20, true));
        if (view.getUint16(at + 10, true) === 0) return content;
        const stream = new Blob([content]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
        return new Uint8Array(await new Response(stream).arrayBuffer());
      }
      at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
    }
  } catch {
    throw damaged;
  }
  throw new Error(`${name} holds no coco.json, so it has no objects that can be corrected. Save COCO, or everything as zip.`);
}
