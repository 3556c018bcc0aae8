/** Read the planes of an image file: PNG, JPEG, TIFF and npy, by their content: `simmat.io.images`. */

import { UserError } from "../../engine";
import { ImageFile } from "./image_file";
import { readJpeg } from "./jpeg";
import { readNpy } from "./npy";
import { readPng } from "./png";
import { readTiff } from "./tiff";

/** Bytes of a file at most. */
const MAX_BYTES = 2 ** 30;

type Reader = (name: string, content: Uint8Array<ArrayBuffer>) => Promise<ImageFile>;

interface Format {
  name: string;
  magic: readonly (readonly number[])[];
  endings: readonly string[];
  read: Reader;
}

const FORMATS: readonly Format[] = [
  { name: "PNG", magic: [[0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]], endings: [".png"], read: readPng },
  { name: "JPEG", magic: [[0xff, 0xd8, 0xff]], endings: [".jpg", ".jpeg"], read: readJpeg },
  {
    name: "TIFF",
    magic: [
      [0x49, 0x49, 0x2a, 0],
      [0x4d, 0x4d, 0, 0x2a],
      [0x49, 0x49, 0x2b, 0],
      [0x4d, 0x4d, 0, 0x2b],
    ],
    endings: [".tif", ".tiff"],
    read: readTiff,
  },
  { name: "NPY", magic: [[0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59]], endings: [".npy"], read: readNpy },
];

/** The bytes of a file; UserError if it is empty, too large or cannot be read. */
export async function bytesOf(file: File): Promise<Uint8Array<ArrayBuffer>> {
  if (file.size === 0) throw new UserError(`${file.name}: the file is empty`);
  if (file.size > MAX_BYTES) {
    throw new UserError(`${file.name}: has ${file.size} bytes, at most ${MAX_BYTES} are read; cut it into tiles`);
  }
  try {
    return new Uint8Array(await file.arrayBuffer());
  } catch {
    throw new UserError(`${file.name}: cannot be read; it may have been moved or changed meanwhile`);
  }
}

/**
 * Read the planes of an image file.
 *
 * @param nodata the stored number that the user calls nodata; null for none.
 */
export async function readImage(
  name: string,
  content: Uint8Array<ArrayBuffer>,
  nodata: number | null,
): Promise<ImageFile> {
  const format = formatOf(name, content);
  let found: ImageFile;
  try {
    found = await format.read(name, content);
  } catch (error) {
    if (error instanceof UserError) throw error;
    const why = error instanceof Error ? error.message : String(error);
    throw new UserError(`${name}: damaged or cut short, it cannot be read as ${format.name} (${why})`);
  }
  if (nodata === null) return found;
  return { ...found, nodata: [...found.nodata, nodata] };
}

function formatOf(name: string, content: Uint8Array): Format {
  const isOf = (format: Format) => format.magic.some((bytes) => bytes.every((byte, at) => content[at] === byte));
  const format = FORMATS.find(isOf);
  const ending = name.slice(name.lastIndexOf(".")).toLowerCase();
  const claimed = FORMATS.find((one) => one.endings.includes(ending));
  if (format === undefined) {
    const names = FORMATS.map((one) => one.name).join(", ");
    throw new UserError(`${name}: not a file of ${names}; convert it to one of these`);
  }
  if (claimed !== undefined && claimed !== format) {
    throw new UserError(`${name}: named ${ending} but its content is ${format.name}; rename it`);
  }
  return format;
}
