/** `rgb`, `gray` and `raster`: `simmat.sensors.builtin`. */

import { UserError } from "../../engine";
import { typeName } from "../files/image_file";
import { readImage } from "../files/read_image";
import { fromPlanes, ImageChannel, SensorImage } from "./image";
import type { Reading } from "./reading";
import { requireOnePlane, validOf } from "./units";

const COLOURS = ["red", "green", "blue"].map((name): ImageChannel => {
  return { name, quantity: "srgb", unit: "count", validRange: [0, 255] };
});

/** Three 8-bit planes of a colour picture. */
export async function rgb({ name, content, nodata }: Reading): Promise<SensorImage> {
  const image = await readImage(name, content, nodata);
  if (image.colour !== "rgb" || image.planes.length !== 3 || typeName(image) !== "uint8") {
    const found = `${image.planes.length} planes of ${typeName(image)}${image.alpha ? " with alpha" : ""}`;
    throw new UserError(`${name}: modality rgb needs three 8-bit planes red, green, blue; this is ${found}`);
  }
  return fromPlanes(image, COLOURS, image.planes, validOf(image));
}

/** One plane of stored numbers. */
export async function gray({ name, content, nodata }: Reading): Promise<SensorImage> {
  const image = await readImage(name, content, nodata);
  requireOnePlane(image, "gray");
  const channel: ImageChannel = { name: "gray", quantity: "counts", unit: "count", validRange: null };
  return fromPlanes(image, [channel], image.planes, validOf(image));
}

/** Planes of counts, `band0`, `band1`, …, in the order of the file. */
export async function raster({ name, content, nodata }: Reading): Promise<SensorImage> {
  const image = await readImage(name, content, nodata);
  const channels = image.planes.map((_, index): ImageChannel => {
    return { name: `band${index}`, quantity: "counts", unit: "count", validRange: null };
  });
  return fromPlanes(image, channels, image.planes, validOf(image));
}
