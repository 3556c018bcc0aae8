/** `multispectral`, `sentinel2`, `landsat8`: bands of a GeoTIFF: `simmat_plugin_multispectral`. */

import { UserError } from "../../engine";
import { BandTags, ImageFile, isFloat, Stored } from "../files/image_file";
import { readImage } from "../files/read_image";
import { fromPlanes, ImageChannel, SensorImage } from "./image";
import { numberOption, Reading } from "./reading";
import { validOf } from "./units";

/** Files of reflectance that do not state their scale: reflectance = stored * scale + offset. */
interface Product {
  scale: number;
  offset: number;
  /** Names of the bands by position or description; null if the file names them. */
  satellite: Satellite | null;
  /** The fill value of the product. */
  nodata: number | null;
}

interface Satellite {
  title: string;
  /** Its band name in lower case -> our name. */
  bands: Readonly<Record<string, string>>;
  /** Whether files without descriptions have the bands in this order. */
  isOrdered: boolean;
}

const SENTINEL2: Satellite = {
  title: "Sentinel-2",
  isOrdered: false,
  bands: {
    b1: "coastal",
    b2: "blue",
    b3: "green",
    b4: "red",
    b5: "rededge1",
    b6: "rededge2",
    b7: "rededge3",
    b8: "nir",
    b8a: "nir08",
    b9: "watervapour",
    b10: "cirrus",
    b11: "swir1",
    b12: "swir2",
  },
};
const LANDSAT8: Satellite = {
  title: "Landsat 8",
  isOrdered: true,
  bands: { b1: "coastal", b2: "blue", b3: "green", b4: "red", b5: "nir", b6: "swir1", b7: "swir2" },
};
/** Of a glint, in a file of reflectance. */
const MAX_REFLECTANCE = 2;
const MIN_RATIO = 9;
/** Values of a band that are looked at, evenly spread. */
const MAX_VALUES = 100_000;

/** All bands, with the names and scales that the file states, or with the options `scale` and `offset`. */
export async function multispectral(reading: Reading): Promise<SensorImage> {
  const scale = numberOption(reading, "scale", 1e-30, 1e30);
  const offset = numberOption(reading, "offset", -1e30, 1e30) ?? 0;
  if (scale === null && offset !== 0) {
    throw new UserError("option offset needs scale: reflectance = stored x scale + offset");
  }
  return await read(reading, scale === null ? null : { scale, offset, satellite: null, nodata: null });
}

/** Reflectance x 10000 of Sentinel-2, bands by name. */
export async function sentinel2(reading: Reading): Promise<SensorImage> {
  const offset = reading.options.boa_offset === "true" ? -0.1 : 0;
  return await read(reading, { scale: 1e-4, offset, satellite: SENTINEL2, nodata: 0 });
}

/** Surface reflectance of Landsat 8 and 9, bands by name. */
export async function landsat8(reading: Reading): Promise<SensorImage> {
  return await read(reading, { scale: 2.75e-5, offset: -0.2, satellite: LANDSAT8, nodata: 0 });
}

async function read({ name, content, nodata }: Reading, product: Product | null): Promise<SensorImage> {
  const file = await readImage(name, content, nodata);
  if (file.format !== "tiff") throw new UserError(`${name}: this modality reads TIFF, got ${file.format.toUpperCase()}`);
  if (file.alpha) {
    throw new UserError(`${name}: its last band is alpha (how opaque a pixel is); save the file without it`);
  }
  const named = product?.satellite ? satelliteNames(product.satellite, file) : fileNames(file);
  const valid = validOf(file);
  const values: Float32Array[] = [];
  for (const [index, plane] of file.planes.entries()) {
    const [scale, offset] = scaleOf(file, index, product);
    values.push(Float32Array.from(plane, (stored) => stored * scale + offset));
    if (product === null || product.nodata === null) continue;
    for (let pixel = 0; pixel < plane.length; pixel++) if (plane[pixel] === product.nodata) valid[index][pixel] = 0;
  }
  const channels = named.map((one, index): ImageChannel => {
    if (product !== null) return { name: one, quantity: "reflectance", unit: "1", validRange: null };
    return { name: one, ...meaningOf(file.bands[index], file.scales[index]), validRange: null };
  });
  const image = fromPlanes(file, channels, values, valid);
  if (product !== null) refuseReflectance(file, image);
  return image;
}

function scaleOf(file: ImageFile, index: number, product: Product | null): readonly [number, number] {
  const [scale, offset] = file.scales[index];
  if (product === null) return [scale, offset];
  const isStated = scale !== 1 || offset !== 0;
  if (isStated && (scale !== product.scale || offset !== product.offset)) {
    throw new UserError(
      `${file.name}: states scale ${scale} and offset ${offset}, but the sensor with its options means ` +
        `${product.scale} and ${product.offset}; correct the options, or the file`,
    );
  }
  return [product.scale, product.offset];
}

/** Quantity and unit of a band from the tags of the file. */
function meaningOf({ unit }: BandTags, [scale, offset]: readonly [number, number]) {
  if (unit.toLowerCase() === "reflectance") return { quantity: "reflectance", unit: "1" };
  if (unit && unit !== "1") return { quantity: "measured", unit };
  if (unit || scale !== 1 || offset !== 0) return { quantity: "scaled", unit: "1" };
  return { quantity: "counts", unit: "count" };
}

/** Each band by its description, or `band0`, `band1`, … without one. */
function fileNames(file: ImageFile): string[] {
  const names = file.bands.map(({ description }, index) => plain(description) || `band${index}`);
  if (new Set(names).size < names.length) {
    throw new UserError(`${file.name}: several bands have the same description; give each its own`);
  }
  return names;
}

/** Lower case, no commas or spaces. */
function plain(description: string): string {
  return description
    .toLowerCase()
    .replace(/[^a-z0-9._+]+/g, "-")
    .replace(/^-+|-+$/g, "");
}

/** Each band by the satellite's standard: by description, or by position if the number of bands is unambiguous. */
function satelliteNames(satellite: Satellite, file: ImageFile): string[] {
  const known = Object.keys(satellite.bands);
  let said = file.bands.map(({ description }) => bandNumber(description.split(",")[0]));
  const isCounted = file.bands.every(({ description }, index) => isCount(description, index + 1));
  if (said.every((one) => !one) || isCounted) {
    if (!satellite.isOrdered || said.length !== known.length) {
      throw new UserError(
        `${file.name}: ${said.length} bands without descriptions; describe them (${known.join(", ")})`,
      );
    }
    said = known;
  }
  const own = Object.values(satellite.bands);
  const found = said.map((one) => satellite.bands[one] ?? (own.includes(one) ? one : undefined));
  if (found.some((one) => one === undefined) || new Set(found).size < found.length) {
    const descriptions = file.bands.map(({ description }) => description.slice(0, 40)).join(", ");
    throw new UserError(
      `${file.name}: bands are described as ${descriptions}; ${satellite.title} has ${known.join(", ")}, each once`,
    );
  }
  return found as string[];
}

/** "b4" for "B04", "B4" and "SR_B4"; else the description in lower case. */
function bandNumber(description: string): string {
  const text = description.trim().toLowerCase();
  const match = /^(?:sr_|band[ _]?)?b?(\d+a?)$/.exec(text);
  return match ? `b${match[1].replace(/^0+(?=\d)/, "")}` : text;
}

/** Whether a description only gives the index of the band in the file, from 1. */
function isCount(description: string, index: number): boolean {
  const match = /^(?:band)?[\s_-]*(\d+)$/i.exec(description.trim());
  return match !== null && Number(match[1]) === index;
}

/** Raise UserError for a file whose stored values seem to be reflectance already. */
function refuseReflectance(file: ImageFile, image: SensorImage): void {
  const bands: number[][] = [];
  for (const [index, plane] of file.planes.entries()) {
    const numbers = takenNumbers(plane, image.valid[index]);
    // a band of zeros fits any scale
    if (numbers.some((number) => number !== 0)) bands.push(numbers);
  }
  if (!bands.length || !bands.every((numbers) => isReflectance(numbers, isFloat(file.planes[0])))) return;
  throw new UserError(
    `${file.name}: nearly all values of every band are within -2 to 2, so they seem to be reflectance already; leave ` +
      "the option scale empty",
  );
}

function takenNumbers(plane: Stored, valid: Uint8Array): number[] {
  const numbers: number[] = [];
  for (let pixel = 0; pixel < plane.length; pixel++) if (valid[pixel]) numbers.push(plane[pixel]);
  if (!isFloat(plane)) return numbers;
  const step = Math.max(Math.floor(numbers.length / MAX_VALUES), 1);
  return numbers.filter((_, index) => index % step === 0);
}

/** Whether the values of a band are probably reflectance itself, not a multiple of it. */
function isReflectance(numbers: readonly number[], hasFloats: boolean): boolean {
  if (!hasFloats) return numbers.every((number) => number >= 0 && number <= 1);
  const small = new Set<number>();
  const large = new Set<number>();
  for (const number of numbers) (Math.abs(number) <= MAX_REFLECTANCE ? small : large).add(number);
  return small.size > MIN_RATIO * large.size;
}
