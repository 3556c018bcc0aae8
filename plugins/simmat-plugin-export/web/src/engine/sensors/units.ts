/** What stored numbers mean: units, plausibility, and what a file must not have: `simmat.io.images`. */

import { UserError } from "../../engine";
import { ImageFile, notNodata, Stored, typeName } from "../files/image_file";
import { SensorImage } from "./image";

/** A unit of stored numbers: the physical value is `stored / per + offset`. */
export interface Unit {
  name: string;
  per: number;
  offset: number;
}

/** Stored numbers in the physical unit, in double precision. */
export function physical(unit: Unit, stored: Stored): Float64Array {
  return Float64Array.from(stored, (value) => value / unit.per + unit.offset);
}

/** For each plane of a file, 1 where its number does not mean "no measurement". */
export function validOf(image: ImageFile): Uint8Array[] {
  return image.planes.map((plane) => notNodata(plane, image.nodata));
}

/** For each plane of a file, 1 where a number is finite and valid; for channels computed from several planes. */
export function measuredOf(image: ImageFile): Uint8Array[] {
  const valid = validOf(image);
  for (const [index, plane] of image.planes.entries()) {
    for (let pixel = 0; pixel < plane.length; pixel++) if (!Number.isFinite(plane[pixel])) valid[index][pixel] = 0;
  }
  return valid;
}

/** A value of the json object in a file's description, such as `{"unit": "cK"}`; undefined if it has none. */
function stated(image: ImageFile, key: string): unknown {
  try {
    const values = JSON.parse(image.description);
    return typeof values === "object" && values !== null && !Array.isArray(values) ? values[key] : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The unit that a file's description states as json, or the user by an option; null if neither states one.
 *
 * @param known the units that a file may state.
 * @param option the unit that the user states.
 * @param noUnit names by which a file says that its numbers have none.
 */
export function statedUnit(
  image: ImageFile,
  known: readonly Unit[],
  option: Unit | null,
  noUnit: readonly string[] = [],
): Unit | null {
  const name = stated(image, "unit");
  if (name === undefined || name === null || noUnit.includes(String(name))) return option;
  const unit = known.find((one) => one.name === name);
  if (unit === undefined) {
    const names = [...known.map((one) => one.name), ...noUnit].join(", ");
    throw new UserError(`${image.name}: its description states unit ${String(name)}; known: ${names}`);
  }
  if (option !== null && (unit.per !== option.per || unit.offset !== option.offset || unit.name !== option.name)) {
    throw new UserError(
      `${image.name}: says its unit is ${unit.name}, but the option unit says ${option.name}; leave the option empty, ` +
        "or correct the file",
    );
  }
  return unit;
}

/** The largest number that a file's pixels can have: of its stated bits, otherwise of its type; infinite for floats. */
export function largestCount(image: ImageFile): number {
  const type = typeName(image);
  const most = type === "bool" ? 1 : type.startsWith("float") ? 64 : image.planes[0].BYTES_PER_ELEMENT * 8;
  const bits = stated(image, "bits");
  if (bits !== undefined && bits !== null) {
    if (!Number.isInteger(bits) || (bits as number) < 1 || (bits as number) > Math.max(most, 8)) {
      throw new UserError(`${image.name}: its description states ${String(bits)} bits; 1 to ${most} are possible`);
    }
    return 2 ** (bits as number) - 1;
  }
  if (type.startsWith("float")) return Infinity;
  if (type === "bool") return 1;
  return type.startsWith("uint") ? 2 ** most - 1 : 2 ** (most - 1) - 1;
}

/** Raise UserError if a file holds several planes. */
export function requireOnePlane(image: ImageFile, modality: string): void {
  if (image.planes.length === 1) return;
  throw new UserError(
    `${image.name}: modality ${modality} needs one plane, got ${image.planes.length} of ${typeName(image)}; give the ` +
      "sensor's own file or one plane of it",
  );
}

/** Raise UserError if a file states a scale or offset from its stored numbers to its values. */
export function requireUnscaled(image: ImageFile, modality: string): void {
  for (const [factor, offset] of image.scales) {
    if (factor === 1 && offset === 0) continue;
    throw new UserError(
      `${image.name}: states that its values are its numbers times ${factor} plus ${offset}, which modality ` +
        `${modality} does not apply; store the values themselves (gdal_translate -unscale -ot Float32)`,
    );
  }
}

/** Raise UserError if a file says that its last plane is alpha. */
export function requireNoAlpha(image: ImageFile, modality: string): void {
  if (!image.alpha) return;
  throw new UserError(
    `${image.name}: modality ${modality} needs measurements, but the last of ${image.planes.length} planes is alpha ` +
      "(opacity); save the file without alpha",
  );
}

/**
 * Raise UserError if most numbers of an image of one channel lie outside of its range, as in another unit.
 *
 * "Most" means more than nine of ten different numbers: a fill value counts once, however often it occurs.
 *
 * @param values numbers of the image before any became invalid.
 * @param measured 0 where the file or the user calls a number missing.
 */
export function requireMeasured(
  image: SensorImage,
  values: Float32Array,
  measured: Uint8Array,
  advice: string,
): SensorImage {
  const range = image.channels[0].validRange;
  if (range === null) return image;
  const inside = new Set<number>();
  const outside = new Set<number>();
  let balance = 0;
  let low = Infinity;
  let high = -Infinity;
  for (let pixel = 0; pixel < values.length; pixel++) {
    const value = values[pixel];
    if (!Number.isFinite(value) || !measured[pixel]) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
    const isInside = image.valid[0][pixel] === 1;
    balance += isInside ? 1 : -1;
    (isInside ? inside : outside).add(value);
  }
  if (balance >= 0 || (inside.size && 9 * inside.size >= outside.size)) return image;
  const many = inside.size ? "most of its numbers lie outside of" : "no pixel lies within";
  const { unit } = image.channels[0];
  throw new UserError(
    `${image.name}: ${many} ${range.join(" to ")} ${unit}, got ${low.toPrecision(6)} to ${high.toPrecision(6)} ` +
      `${unit}; is its unit another one? ${advice}`,
  );
}
