/** The planes of an image file as they are stored, and what the file says of them: `simmat.types.ImageFile`. */

import { UserError } from "../../engine";

/** Numbers as a file stores them; true and false are 1 and 0 of a Uint8Array. */
export type Stored =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array;

export interface ImageFile {
  name: string;
  format: "png" | "jpeg" | "tiff" | "npy";
  height: number;
  width: number;
  /** For each plane its (height * width) stored numbers. */
  planes: readonly Stored[];
  /** "gray" for one plane, "rgb" if the file says red, green, blue, or "planes" if it does not say. */
  colour: "gray" | "rgb" | "planes";
  /** Whether the stored numbers are true and false. */
  isBool: boolean;
  /** TIFF ImageDescription or PNG text "Description"; "" if there is none. */
  description: string;
  /** Stored numbers that mean "no measurement". */
  nodata: readonly number[];
  /** For each plane, factor and offset from stored numbers to values; empty where the format states none. */
  scales: readonly (readonly [number, number])[];
  /** Whether the last plane is alpha (opacity), which is not a measurement. */
  alpha: boolean;
  /** What the file says of each band, for GeoTIFF; empty otherwise. */
  bands: readonly BandTags[];
  pixelSize?: { value: number; unit: "m" | "µm" };
}

/** Description, unit and further items of a band, as GDAL's tags state them. */
export interface BandTags {
  description: string;
  unit: string;
  tags: Readonly<Record<string, string>>;
}

/** Values of an image at most: 1 GiB as float32, which a tab can hold. */
const MAX_VALUES = 2 ** 28;
/** Planes of one image at most. */
export const MAX_PLANES = 4096;

/** Refuse an image without pixels, and one that is too large, before its pixels are decoded. */
export function checkSize(name: string, height: number, width: number, planes: number): void {
  if (!(height >= 1 && width >= 1 && planes >= 1)) {
    throw new UserError(`${name}: holds no pixels, its size is ${width}x${height} in ${planes} planes`);
  }
  if (planes > MAX_PLANES) {
    throw new UserError(`${name}: claims ${planes} planes, at most ${MAX_PLANES} are read; the file may be damaged`);
  }
  const values = height * width * planes;
  if (values > MAX_VALUES) {
    throw new UserError(
      `${name}: claims ${planes} x ${height} x ${width} values (planes, height, width), more than the ` +
        `${MAX_VALUES} that a page can hold; the file may be damaged. If it is right, cut it into tiles`,
    );
  }
}

/** (height * width), 1 where a stored number of a plane does not mean "no measurement". */
export function notNodata(plane: Stored, nodata: readonly number[]): Uint8Array {
  const valid = new Uint8Array(plane.length).fill(1);
  for (const given of nodata) {
    // as numpy compares: a number in the precision of the plane
    const number = plane instanceof Float32Array ? Math.fround(given) : given;
    for (let pixel = 0; pixel < plane.length; pixel++) if (plane[pixel] === number) valid[pixel] = 0;
  }
  return valid;
}

export function isFloat(plane: Stored): plane is Float32Array | Float64Array {
  return plane instanceof Float32Array || plane instanceof Float64Array;
}

/** numpy's name of the type of a plane. */
export function typeName(image: ImageFile): string {
  if (image.isBool) return "bool";
  return image.planes[0].constructor.name.replace("Array", "").toLowerCase();
}

/** Split numbers of side-by-side samples (height * width * count) into planes. */
export function separated<Values extends Stored>(values: Values, count: number): Values[] {
  const size = values.length / count;
  const make = values.constructor as new (length: number) => Values;
  const planes = Array.from({ length: count }, () => new make(size));
  for (const [index, plane] of planes.entries()) {
    for (let pixel = 0; pixel < size; pixel++) plane[pixel] = values[pixel * count + index];
  }
  return planes;
}

/** Decompress bytes; stop where they are more than `most`, which a damaged file or a bomb gives. */
export async function inflated(
  name: string,
  packed: Uint8Array<ArrayBuffer>,
  most: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const reader = stream.getReader();
  const result = new Uint8Array(most);
  let place = 0;
  try {
    while (true) {
      const { done, value } = await reader.read();
      if (done) break;
      const part = value.subarray(0, most - place);
      result.set(part, place);
      place += part.length;
      if (place === most) break;
    }
  } catch {
    // what is missing is found below
  } finally {
    void reader.cancel().catch(() => {});
  }
  if (place < most) throw new UserError(`${name}: damaged or cut short, pixels are missing`);
  return result;
}
