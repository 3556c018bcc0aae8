/** Read 8-bit JPEG through the browser's decoder, without rotation and colour profiles, which would change numbers. */

import { UserError } from "../../engine";
import { checkSize, ImageFile } from "./image_file";

/** Markers, ITU T.81 table B.1. */
const SCAN = 0xda;
const APP1 = 0xe1;
const APP2 = 0xe2;
const FRAMES = [0xc0, 0xc1, 0xc2];

/** A segment before the scan of a JPEG. */
export interface Segment {
  marker: number;
  /** Where its marker begins, and its payload. */
  start: number;
  payload: Uint8Array<ArrayBuffer>;
}

/** The segments before the scan of a JPEG; none if it is not a JPEG. */
export function* segmentsOf(content: Uint8Array<ArrayBuffer>): Generator<Segment> {
  if (content[0] !== 0xff || content[1] !== 0xd8) return;
  let place = 2;
  while (place + 4 <= content.length) {
    const length = (content[place + 2] << 8) | content[place + 3];
    if (content[place] !== 0xff || content[place + 1] === SCAN || length < 2) return;
    const payload = content.subarray(place + 4, place + 2 + length);
    yield { marker: content[place + 1], start: place, payload };
    place += 2 + length;
  }
}

/** Bits, height, width and planes of the picture of a JPEG; null without a frame that is read. */
export function frameOf(content: Uint8Array<ArrayBuffer>) {
  for (const { marker, payload } of segmentsOf(content)) {
    if (FRAMES.includes(marker) && payload.length >= 6) {
      const [height, width] = [(payload[1] << 8) | payload[2], (payload[3] << 8) | payload[4]];
      return { bits: payload[0], height, width, count: payload[5] };
    }
  }
  return null;
}

export async function readJpeg(name: string, content: Uint8Array<ArrayBuffer>): Promise<ImageFile> {
  const frame = frameOf(content);
  if (frame === null) throw new UserError(`${name}: damaged, or a kind of JPEG that is not read; store it as PNG`);
  const { bits, height, width, count } = frame;
  if (bits !== 8 || (count !== 1 && count !== 3)) {
    throw new UserError(`${name}: a JPEG of ${bits} bits and ${count} planes cannot be read as stored; store it as TIFF`);
  }
  checkSize(name, height, width, count);
  const pixels = await decoded(plain(content), height, width);
  const planes = Array.from({ length: count }, () => new Uint8Array(height * width));
  for (const [index, plane] of planes.entries()) {
    for (let pixel = 0; pixel < plane.length; pixel++) plane[pixel] = pixels[4 * pixel + index];
  }
  return {
    name,
    format: "jpeg",
    height,
    width,
    planes,
    colour: count === 1 ? "gray" : "rgb",
    isBool: false,
    description: "",
    nodata: [],
    scales: [],
    alpha: false,
    bands: [],
  };
}

/** A JPEG without what a browser would apply: the orientation in APP1, the colour profile in APP2. */
function plain(content: Uint8Array<ArrayBuffer>): Blob {
  const parts: Uint8Array<ArrayBuffer>[] = [content.subarray(0, 2)];
  let end = 2;
  for (const { marker, start, payload } of segmentsOf(content)) {
    const next = start + 4 + payload.length;
    if (marker !== APP1 && marker !== APP2) parts.push(content.subarray(start, next));
    end = next;
  }
  return new Blob([...parts, content.subarray(end)], { type: "image/jpeg" });
}

async function decoded(picture: Blob, height: number, width: number): Promise<Uint8ClampedArray> {
  const bitmap = await createImageBitmap(picture, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  if (bitmap.width !== width || bitmap.height !== height) throw new Error("its size is not the stated one");
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (context === null) throw new Error("the browser has no canvas");
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height).data;
}
