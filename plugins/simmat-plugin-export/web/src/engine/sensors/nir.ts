/** `nir` and `red-nir`: `simmat_plugin_nir`. */

import { UserError } from "../../engine";
import { ImageFile, Stored, typeName } from "../files/image_file";
import { readImage } from "../files/read_image";
import { fromPlanes, ImageChannel, SensorImage } from "./image";
import type { Reading } from "./reading";
import { largestCount, measuredOf, requireNoAlpha, requireOnePlane, requireUnscaled, validOf } from "./units";

function channel(name: string): ImageChannel {
  return { name, quantity: "counts", unit: "count", validRange: null };
}

/** Counts of a near-infrared camera, one plane. */
export async function nir({ name, content, nodata }: Reading): Promise<SensorImage> {
  const image = await readImage(name, content, nodata);
  requireOnePlane(image, "nir");
  return fromPlanes(image, [channel("nir")], image.planes, validOf(image));
}

/** Red and near-infrared, planes 0 and 1 of a file. */
export async function redNir({ name, content, nodata }: Reading): Promise<SensorImage> {
  const image = await readImage(name, content, nodata);
  requireUnscaled(image, "red-nir");
  checkPlanes(image);
  const channels = ["red", "nir"].map((one) => ({ ...channel(one), validRange: countRange(image) }));
  return fromPlanes(image, channels, image.planes.slice(0, 2), measuredOf(image));
}

/** The range of the file's number type. */
function countRange(image: ImageFile): readonly [number, number] | null {
  const most = largestCount(image);
  if (!Number.isFinite(most)) return null;
  const type = typeName(image);
  return [type.startsWith("int") ? -(2 ** (8 * image.planes[0].BYTES_PER_ELEMENT - 1)) : 0, most];
}

/** Refuse other planes than red, nir and one that adds nothing. */
function checkPlanes(image: ImageFile): void {
  const { name, planes } = image;
  const count = planes.length;
  if (image.format === "jpeg") {
    throw new UserError(`${name}: modality red-nir reads PNG, TIFF or npy: a JPEG mixes the planes of a file`);
  }
  if (count === 2 || count === 3) requireNoAlpha(image, "red-nir");
  if (count === 2) return;
  if (count === 3 && !equal(planes[0], planes[1])) {
    if (planes[2].every((value) => value === 0) || equal(planes[0], planes[2]) || equal(planes[1], planes[2])) return;
  }
  const why = count === 3 ? "; its planes are equal, or its third adds another one, as a colour picture has" : "";
  throw new UserError(`${name}: modality red-nir needs the planes red and nir, got ${count}${why}`);
}

function equal(one: Stored, other: Stored): boolean {
  return one.every((value, pixel) => value === other[pixel]);
}
