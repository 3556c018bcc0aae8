/** Objects as a COCO document with the fields that `simmat predict` writes; masks as compressed run lengths. */

import type { Size } from "shared/masks.js";
import type { FoundMask } from "../../engine";
import type { LabelledObject } from "../labels";

export interface CocoImage {
  fileName: string;
  size: Size;
  objects: readonly LabelledObject[];
  /** Column -> number of an object. */
  measurementsOf(object: LabelledObject): Record<string, number | null>;
}

/** Where the objects come from, as in simmat/data/predicted.py. */
const INFO = { description: "Objects found by a model or drawn by hand in a page of simmat export --html" };
const NO_CLASS = "object";

export function cocoDocument(images: readonly CocoImage[], classNames: ReadonlyMap<number, string>): object {
  const categories = new Map(classNames);
  const annotations: object[] = [];
  const withoutClass = freeCategory(images, categories);
  images.forEach((image, index) => {
    for (const object of image.objects) {
      const { classId } = object.mask;
      const category = classId ?? withoutClass;
      if (!categories.has(category)) categories.set(category, classId === undefined ? NO_CLASS : String(classId));
      annotations.push(annotation(object, image, annotations.length + 1, index + 1, category));
    }
  });
  return {
    info: INFO,
    images: images.map(({ fileName, size }, index) => ({ id: index + 1, file_name: fileName, height: size.height, width: size.width })),
    annotations,
    categories: [...categories].sort(([a], [b]) => a - b).map(([id, name]) => ({ id, name })),
  };
}

/** The category of objects without a class: 1, or a value after those of classes. */
function freeCategory(images: readonly CocoImage[], classNames: ReadonlyMap<number, string>): number {
  const used = new Set(classNames.keys());
  for (const { objects } of images) {
    for (const { mask } of objects) if (mask.classId !== undefined) used.add(mask.classId);
  }
  return used.has(1) ? Math.max(...used) + 1 : 1;
}

function annotation(object: LabelledObject, image: CocoImage, id: number, imageId: number, category: number): object {
  const { mask } = object;
  return {
    id,
    image_id: imageId,
    category_id: category,
    bbox: [mask.x, mask.y, mask.width, mask.height],
    area: mask.area,
    iscrowd: 0,
    label: object.number, // its value in the saved mask
    ...(Number.isNaN(mask.score) ? {} : { score: mask.score }), // a painted mask has none
    segmentation: { size: [image.size.height, image.size.width], counts: compressed(runLengths(mask, image.size)) },
    attributes: image.measurementsOf(object),
  };
}

/** Lengths of runs along the columns of the image, of background and object in turn, background first. */
export function runLengths(mask: FoundMask, { width, height }: Size): number[] {
  const runs: number[] = [];
  let end = 0; // of the last run
  let isInside = 0;
  const change = (at: number) => {
    runs.push(at - end);
    end = at;
    isInside = 1 - isInside;
  };
  for (let column = 0; column < mask.width; column += 1) {
    const top = (mask.x + column) * height;
    for (let row = 0; row < mask.height; row += 1) {
      if (mask.inside[row * mask.width + column] !== isInside) change(top + mask.y + row);
    }
    const reachesNextColumn = mask.y === 0 && mask.height === height;
    if (isInside && !reachesNextColumn) change(top + mask.y + mask.height);
  }
  const pixels = width * height;
  const lastInside = (mask.x + mask.width) * height;
  if (isInside) change(lastInside);
  if (end < pixels) runs.push(pixels - end);
  return runs;
}

/** COCO's text of run lengths: five bits a character, from the third on as differences to the last but one (maskApi.c). */
export function compressed(runs: readonly number[]): string {
  let text = "";
  runs.forEach((run, index) => {
    let rest = index > 2 ? run - runs[index - 2] : run;
    let hasMore = true;
    while (hasMore) {
      let bits = rest & 0x1f;
      rest >>= 5;
      hasMore = bits & 0x10 ? rest !== -1 : rest !== 0;
      if (hasMore) bits |= 0x20;
      text += String.fromCharCode(bits + 48);
    }
  });
  return text;
}
