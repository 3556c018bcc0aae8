/** Class maps as a canvas draws them; each picture is made once. */

import { rgbOf } from "shared/colours.js";
import { drawFill, type Fill, filled, packed } from "shared/drawn_masks.js";
import type { View } from "shared/view.js";
import type { ModelInfo } from "../engine";
import { colourOfLabel } from "./colours";
import type { StoredClassMap } from "./images";

const pictures = new WeakMap<StoredClassMap, Fill>();

export function drawClassMap(context: CanvasRenderingContext2D, view: View, map: StoredClassMap, info: ModelInfo, opacity: number): void {
  let picture = pictures.get(map);
  if (!picture) {
    picture = classPicture(map, info);
    pictures.set(map, picture);
  }
  context.save();
  context.globalAlpha = opacity;
  drawFill(context, view, picture, { x: 0, y: 0 });
  context.restore();
}

/** The background, and what was not measured, stay transparent. */
function classPicture(map: StoredClassMap, info: ModelInfo): Fill {
  const colours = new Uint32Array(0x10000);
  for (const label of new Set(map.labels)) {
    const colour = colourOfLabel(info, label);
    if (colour && label !== map.nodata) colours[label] = packed(rgbOf(colour));
  }
  return filled(map, (index) => colours[map.labels[index]]);
}
