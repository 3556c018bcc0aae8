/** Colours of objects, and the maps from grey values to colours. */

import { colourOfNumber, WITHOUT_CLASS } from "shared/colours.js";
import type { FoundMask, ModelInfo } from "../engine";

type Rgb = readonly [number, number, number];


/** The colour of a label value of a class map; null for the background, which has none. */
export function colourOfLabel(info: ModelInfo, label: number): string | null {
  const known = info.classes.get(label);
  if (known) return known.colour;
  return label === 0 ? null : colourOfNumber(label);
}

export function colourOfObject(info: ModelInfo, mask: FoundMask, number: number): string {
  if (!info.classes.size) return colourOfNumber(number);
  if (mask.classId === undefined) return WITHOUT_CLASS;
  return info.classes.get(mask.classId)?.colour ?? WITHOUT_CLASS;
}

export type ColourMap = "gray" | "inferno";

/** Anchors of matplotlib's inferno at equal distances. */
const INFERNO: readonly Rgb[] = [
  [0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164],
];

/** (256 * 3) red, green and blue, from the darkest to the brightest. */
export function colourTable(map: ColourMap): Uint8Array {
  const table = new Uint8Array(256 * 3);
  for (let level = 0; level < 256; level += 1) {
    const colour = map === "gray" ? [level, level, level] : interpolated(INFERNO, level / 255);
    table.set(colour, 3 * level);
  }
  return table;
}

function interpolated(anchors: readonly Rgb[], share: number): number[] {
  const place = share * (anchors.length - 1);
  const first = Math.min(anchors.length - 2, Math.floor(place));
  const rest = place - first;
  return anchors[first].map((value, part) => Math.round(value + rest * (anchors[first + 1][part] - value)));
}
