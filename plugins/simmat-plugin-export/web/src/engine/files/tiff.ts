/** Read TIFF through geotiff.js: planes of any type, with what GDAL, OME and ImageJ state in it: `simmat.io.tiff`. */

import { fromArrayBuffer, GeoTIFFImage } from "geotiff";

import { UserError } from "../../engine";
import { BandTags, checkSize, ImageFile, MAX_PLANES, Stored } from "./image_file";

/** Bits of NewSubfileType, TIFF 6.0 page 36. */
const REDUCED = 1;
const MASK = 4;
const MINISBLACK = 1;
const RGB = 2;
/** ExtraSamples, associated and not, TIFF 6.0 page 31. */
const ALPHA = [1, 2];
/** Bytes at the start of a TIFF that hold no pixels. */
const HEADER = 8;
/** Unit as OME-XML or ImageJ writes it -> µm; ImageJ writes the micro sign as an escape. */
const MICROMETRES: Readonly<Record<string, number>> = {
  m: 1e6,
  cm: 1e4,
  mm: 1e3,
  micron: 1,
  microns: 1,
  um: 1,
  µm: 1,
  "\\u00B5m": 1,
  nm: 1e-3,
  Å: 1e-4,
  pm: 1e-6,
};

export async function readTiff(name: string, content: Uint8Array<ArrayBuffer>): Promise<ImageFile> {
  const pages = await pagesOf(name, content);
  const first = pages[0];
  const tags = await Promise.all(pages.map(tagsOf));
  for (const one of tags) checkWhole(name, one, content.length);
  const height = first.getHeight();
  const width = first.getWidth();
  const samples = first.getSamplesPerPixel();
  const planes: Stored[] = [];
  for (const [index, page] of pages.entries()) {
    if (tags[index].compression === 1) withoutPredictor(page);
    const rasters = (await page.readRasters({ interleave: false })) as unknown as Stored[];
    for (let sample = 0; sample < samples; sample++) planes.push(rasters[sample]);
  }
  const metadata = tags.map((one) => itemsOf(one.gdal));
  const description = firstDescription(content) ?? tags[0].description;
  const pixelSize = pixelSizeOf(first, tags[0]);
  return {
    name,
    format: "tiff",
    height,
    width,
    planes,
    colour: tags[0].photometric === RGB ? "rgb" : planes.length === 1 ? "gray" : "planes",
    isBool: first.getBitsPerSample() === 1,
    description,
    nodata: nodataOf(name, tags[0].nodata),
    scales: metadata.flatMap((items) => scalesOf(items, samples)),
    alpha: ALPHA.includes(tags[0].extraSamples.at(-1) ?? 0),
    bands: metadata.flatMap((items) => bandsOf(items, samples)),
    ...(pixelSize && { pixelSize }),
  };
}

interface Tags {
  photometric: number;
  compression: number;
  subfile: number;
  extraSamples: readonly number[];
  description: string;
  nodata: string;
  gdal: string;
  offsets: readonly number[];
  counts: readonly number[];
  isTiled: boolean;
}

async function tagsOf(page: GeoTIFFImage): Promise<Tags> {
  const directory = page.fileDirectory as any;
  const load = async (tag: string) => (directory.hasTag(tag) ? await directory.loadValue(tag) : undefined);
  const numbers = async (tag: string) => Array.from((await load(tag)) ?? [], Number);
  const isTiled = page.isTiled;
  const text = (value: unknown) => withoutEnd(String(value ?? ""));
  return {
    photometric: (await load("PhotometricInterpretation")) ?? MINISBLACK,
    compression: (await load("Compression")) ?? 1,
    subfile: (await load("NewSubfileType")) ?? 0,
    extraSamples: await numbers("ExtraSamples"),
    description: text(await load("ImageDescription")),
    nodata: text(await load("GDAL_NODATA")),
    gdal: text(await load("GDAL_METADATA")),
    offsets: await numbers(isTiled ? "TileOffsets" : "StripOffsets"),
    counts: await numbers(isTiled ? "TileByteCounts" : "StripByteCounts"),
    isTiled,
  };
}

/**
 * The first ImageDescription of a TIFF of 32 bits; null if there is none.
 *
 * tifffile writes two, the user's and its own; geotiff.js keeps the last.
 */
function firstDescription(content: Uint8Array): string | null {
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  const little = content[0] === 0x49;
  if (view.getUint16(2, little) !== 42) return null;
  const start = view.getUint32(4, little);
  const count = view.getUint16(start, little);
  for (let entry = start + 2; entry < start + 2 + 12 * count; entry += 12) {
    if (view.getUint16(entry, little) !== 270) continue;
    const length = view.getUint32(entry + 4, little);
    const place = length > 4 ? view.getUint32(entry + 8, little) : entry + 8;
    return withoutEnd(new TextDecoder().decode(content.subarray(place, place + length)));
  }
  return null;
}

/** A text without the zeros that end it. */
function withoutEnd(text: string): string {
  let length = text.length;
  while (text[length - 1] === "\0") length--;
  return text.slice(0, length);
}

/** The pages of the image without reduced copies, after checking that they agree and what they claim. */
async function pagesOf(name: string, content: Uint8Array<ArrayBuffer>): Promise<GeoTIFFImage[]> {
  const whole = content.byteOffset === 0 && content.byteLength === content.buffer.byteLength;
  const tiff = await fromArrayBuffer(whole ? content.buffer : content.slice().buffer);
  const every: GeoTIFFImage[] = [];
  while (every.length <= MAX_PLANES) {
    try {
      every.push(await tiff.getImage(every.length));
    } catch (error) {
      // geotiff.js has no other sign of the last page
      if (every.length && error instanceof Error && error.constructor.name.includes("IndexError")) break;
      if (every.length && String(error).includes("No image at index")) break;
      throw error;
    }
  }
  const refuse = (fault: string) => {
    throw new UserError(`${name}: ${fault}; store one image of planes, MINISBLACK or RGB, as TIFF or PNG`);
  };
  if (every.length > MAX_PLANES) refuse(`lists more than ${MAX_PLANES} pages; the file may be damaged`);
  const subfile = (page: GeoTIFFImage) => Number((page.fileDirectory as any).getValue("NewSubfileType") ?? 0);
  if (every.some((page) => subfile(page) & MASK)) refuse("a transparency mask page, whose pixels should be nodata");
  const pages = every.filter((page) => !(subfile(page) & REDUCED));
  if (!pages.length) refuse("holds no full-size page");
  const kinds = new Set(pages.map(kindOf));
  if (kinds.size > 1) refuse(`its ${pages.length} pages differ (${[...kinds].sort().join(", ")})`);
  const samples = pages[0].getSamplesPerPixel();
  if (pages.length > 1 && samples > 1) refuse(`${pages.length} pages of ${samples} samples are several images`);
  const photometric = Number((pages[0].fileDirectory as any).getValue("PhotometricInterpretation") ?? MINISBLACK);
  if (![MINISBLACK, RGB].includes(photometric)) {
    refuse(`numbers of photometric ${photometric} (0 is white, 3 a palette, 6 YCbCr) are not intensities`);
  }
  checkSize(name, pages[0].getHeight(), pages[0].getWidth(), samples * pages.length);
  // a tile is decoded as a whole, even where most of it lies outside of the image
  checkSize(name, pages[0].getTileHeight(), pages[0].getTileWidth(), samples);
  return pages;
}

function kindOf(page: GeoTIFFImage): string {
  const photometric = (page.fileDirectory as any).getValue("PhotometricInterpretation");
  const type = `${page.getSampleFormat()} of ${page.getBitsPerSample()} bits`;
  return `${page.getWidth()}x${page.getHeight()} x ${page.getSamplesPerPixel()}, format ${type}, photometric ${photometric}`;
}

/** Refuse a file that ends before its pixels do. */
function checkWhole(name: string, tags: Tags, size: number): void {
  const isSparse = tags.nodata !== "";
  const isWhole = tags.offsets.length > 0 && tags.offsets.length <= tags.counts.length;
  const isThere = (offset: number, count: number) => {
    if (isSparse && offset === 0 && count === 0) return true; // GDAL omits tiles of nodata
    return offset >= HEADER && count > 0 && offset + count <= size;
  };
  if (!isWhole || !tags.offsets.every((offset, index) => isThere(offset, tags.counts[index]))) {
    throw new UserError(`${name}: damaged or cut short, pixels are missing from its ${size} bytes`);
  }
}

/** A predictor is a part of the compression: libtiff and Pillow ignore it where nothing is compressed. */
function withoutPredictor(page: GeoTIFFImage): void {
  const directory = page.fileDirectory as any;
  if (directory.hasTag("Predictor")) directory.actualizedFields?.set(317, 1);
}

function nodataOf(name: string, text: string): number[] {
  if (!text.trim()) return [];
  const number = /^[-+]?nan$/i.test(text.trim()) ? NaN : Number(text.trim());
  if (Number.isNaN(number) && !/nan/i.test(text)) {
    throw new UserError(`${name}: its GDAL_NODATA tag must be a number, got ${text.slice(0, 40)}`);
  }
  return [number];
}

/** An item of GDAL's metadata. */
interface Item {
  name: string;
  sample: number | null;
  role: string;
  value: string;
}

/**
 * The items of GDAL's metadata, which are simple enough to be found without an XML parser; a worker has none.
 *
 * The text is walked once: a regular expression would try again from each place of a text that is no metadata.
 */
function itemsOf(text: string): Item[] {
  const items: Item[] = [];
  let start = text.indexOf("<Item");
  while (start >= 0) {
    const head = start + "<Item".length;
    if (!/\s/.test(text.charAt(head))) {
      start = text.indexOf("<Item", head);
      continue;
    }
    const headEnd = text.indexOf(">", head);
    if (headEnd < 0) break;
    const end = text.indexOf("<", headEnd);
    if (end < 0) break;
    if (text.startsWith("</Item>", end)) items.push(itemOf(text.slice(head, headEnd), text.slice(headEnd + 1, end)));
    start = text.indexOf("<Item", end);
  }
  return items;
}

function itemOf(head: string, value: string): Item {
  const found = attributesOf(head);
  const sample = found.get("sample");
  return {
    name: unescaped(found.get("name") ?? ""),
    sample: sample === undefined ? null : Number(sample),
    role: found.get("role") ?? "",
    value: unescaped(value),
  };
}

/** Name -> value of each name="value". */
function attributesOf(head: string): Map<string, string> {
  const found = new Map<string, string>();
  let last = 0;
  let equals = head.indexOf('="');
  while (equals >= 0) {
    const value = equals + 2;
    let start = equals;
    while (start > last && /\w/.test(head.charAt(start - 1))) start--;
    last = value;
    if (start < equals) {
      const end = head.indexOf('"', value);
      if (end < 0) break;
      found.set(head.slice(start, equals), head.slice(value, end));
      last = end + 1;
    }
    equals = head.indexOf('="', last);
  }
  return found;
}

function unescaped(text: string): string {
  const known: Record<string, string> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };
  return text.replace(/&(lt|gt|quot|apos|amp);/g, (_, name) => known[name]);
}

/** Factor and offset of each sample; 1 and 0 where they are not stated. */
function scalesOf(items: readonly Item[], samples: number): [number, number][] {
  const factors = numbersOf(items, "scale", samples, 1);
  const offsets = numbersOf(items, "offset", samples, 0);
  return factors.map((factor, index) => [factor, offsets[index]]);
}

/** The number that the items of a role state of each sample; an item that names no sample is about all. */
function numbersOf(items: readonly Item[], wanted: string, samples: number, unstated: number): number[] {
  const own = new Map<number, number>();
  let other = unstated;
  // of several items the last one counts
  for (let index = items.length - 1; index >= 0; index--) {
    const { role, sample, value } = items[index];
    const number = Number(value);
    if (role !== wanted || Number.isNaN(number)) continue;
    if (sample === null) {
      other = number;
      break;
    }
    if (!own.has(sample)) own.set(sample, number);
  }
  return Array.from({ length: samples }, (_, sample) => own.get(sample) ?? other);
}

function bandsOf(items: readonly Item[], samples: number): BandTags[] {
  const itemsOfSample = Array.from({ length: samples }, (): Item[] => []);
  for (const item of items) if (item.sample !== null) itemsOfSample[item.sample]?.push(item);
  return itemsOfSample.map((own) => {
    const role = (name: string) => own.find((item) => item.role.toLowerCase() === name)?.value.trim() ?? "";
    const tags = own.filter((item) => item.role === "").map((item) => [item.name, item.value.trim()]);
    return { description: role("description"), unit: role("unittype"), tags: Object.fromEntries(tags) };
  });
}

/** The side of a pixel in metres or micrometres, where the file states it with a unit of length. */
function pixelSizeOf(page: GeoTIFFImage, { description }: Tags): ImageFile["pixelSize"] | null {
  const micro = description.startsWith("ImageJ=") ? imageJSize(page, description) : omeSize(description);
  if (micro !== null) return { value: micro, unit: "µm" };
  try {
    const keys = page.getGeoKeys() as any;
    // UTM, whose metres are those of the ground within 1 %; other maps stretch areas
    const code = Number(keys?.ProjectedCSTypeGeoKey);
    const isMetric = (code > 32600 && code <= 32660) || (code > 32700 && code <= 32760);
    const [x, y] = page.getResolution();
    if (isMetric && x > 0 && Math.abs(Math.abs(y) - x) < 1e-6 * x) return { value: x, unit: "m" };
  } catch {
    // no place on the earth
  }
  return null;
}

function imageJSize(page: GeoTIFFImage, description: string): number | null {
  const unit = /^unit=(.+)$/m.exec(description)?.[1].trim() ?? "";
  const directory = page.fileDirectory as any;
  const ratio = (tag: string) => {
    const value = directory.hasTag(tag) ? directory.getValue(tag) : undefined;
    return Array.isArray(value) || ArrayBuffer.isView(value) ? Number((value as any)[0]) / Number((value as any)[1]) : NaN;
  };
  return squareSize(MICROMETRES[unit] / ratio("YResolution"), MICROMETRES[unit] / ratio("XResolution"));
}

function omeSize(description: string): number | null {
  if (!description.slice(0, 1000).includes("<OME")) return null;
  const start = description.search(/<(?:\w+:)?Pixels\b/);
  const end = description.indexOf(">", start);
  if (start < 0 || end < 0) return null;
  const pixels = description.slice(start, end);
  const side = (axis: string) => {
    const value = new RegExp(`PhysicalSize${axis}="([^"]*)"`).exec(pixels)?.[1];
    const unit = new RegExp(`PhysicalSize${axis}Unit="([^"]*)"`).exec(pixels)?.[1] ?? "µm";
    return Number(value ?? NaN) * MICROMETRES[unit];
  };
  return squareSize(side("Y"), side("X"));
}

function squareSize(height: number, width: number): number | null {
  if (!(height > 0 && width > 0 && Number.isFinite(height)) || Math.abs(height - width) > 1e-6 * width) return null;
  return width;
}
