/** Read PNG with all its bits: 1 to 16 bits, one to four planes (W3C Portable Network Graphics, third edition). */

import { joinedBytes } from "./bytes";
import { UserError } from "../../engine";
import { checkSize, ImageFile, inflated, separated } from "./image_file";

/** Colour type -> planes; 3, a palette, has numbers that are no measurements. */
const PLANES: Readonly<Record<number, number>> = { 0: 1, 2: 3, 4: 2, 6: 4 };
/** First column and row of the passes of an interlaced image, and their steps. */
const PASSES = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;

interface Head {
  width: number;
  height: number;
  depth: number;
  count: number;
  isInterlaced: boolean;
}

export async function readPng(name: string, content: Uint8Array<ArrayBuffer>): Promise<ImageFile> {
  const { head, colourType, packed, description } = chunksOf(name, content);
  const { width, height, count } = head;
  const passes = head.isInterlaced ? PASSES : ([[0, 0, 1, 1]] as const);
  const sizes = passes.map(([x0, y0, dx, dy]) => {
    return [Math.ceil((width - x0) / dx), Math.ceil((height - y0) / dy)] as const;
  });
  const sizeOf = ([columns, rows]: readonly [number, number]) => {
    return columns > 0 && rows > 0 ? rows * (1 + rowBytes(head, columns)) : 0;
  };
  const total = sizes.reduce((sum, size) => sum + sizeOf(size), 0);
  const rows = await inflated(name, packed, total);
  const make = head.depth === 16 ? Uint16Array : Uint8Array;
  const values = new make(width * height * count);
  let start = 0;
  for (const [index, [x0, y0, dx, dy]] of passes.entries()) {
    const [columns, lines] = sizes[index];
    if (columns <= 0 || lines <= 0) continue;
    unfilter(name, rows, start, lines, rowBytes(head, columns), Math.max((head.depth * count) >> 3, 1));
    for (let line = 0; line < lines; line++) {
      const row = start + line * (1 + rowBytes(head, columns)) + 1;
      const target = (y0 + line * dy) * width;
      for (let column = 0; column < columns; column++) {
        const pixel = (target + x0 + column * dx) * count;
        for (let plane = 0; plane < count; plane++) {
          values[pixel + plane] = sample(rows, row, column * count + plane, head.depth);
        }
      }
    }
    start += sizeOf(sizes[index]);
  }
  return {
    name,
    format: "png",
    height,
    width,
    planes: count === 1 ? [values] : separated(values, count),
    colour: ({ 2: "rgb", 4: "planes", 6: "rgb" } as const)[colourType as 2] ?? "gray",
    isBool: head.depth === 1,
    description,
    nodata: [],
    scales: [],
    alpha: colourType >= 4,
    bands: [],
  };
}

/** Bytes of a row without the one that states its filter. */
function rowBytes({ depth, count }: Head, columns: number): number {
  return Math.ceil((columns * count * depth) / 8);
}

function sample(rows: Uint8Array, row: number, index: number, depth: number): number {
  if (depth === 8) return rows[row + index];
  if (depth === 16) return (rows[row + 2 * index] << 8) | rows[row + 2 * index + 1];
  const bit = index * depth;
  return (rows[row + (bit >> 3)] >> (8 - depth - (bit & 7))) & ((1 << depth) - 1);
}

function chunksOf(name: string, content: Uint8Array<ArrayBuffer>) {
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let head: Head | null = null;
  let colourType = 0;
  let description = "";
  let place = 8;
  while (place + 12 <= content.length) {
    const length = view.getUint32(place);
    const kind = latin(content.subarray(place + 4, place + 8));
    const body = content.subarray(place + 8, place + 8 + length);
    if (body.length < length) throw new UserError(`${name}: damaged or cut short, its chunk ${kind} is not complete`);
    if (kind === "IHDR") [head, colourType] = headOf(name, body);
    else if (head === null) break;
    else if (kind === "IDAT") parts.push(body);
    else if (kind === "acTL") throw new UserError(`${name}: an animation cannot be read as an image; store one frame`);
    else if (kind === "tEXt" && latin(body).startsWith("Description\0")) description = latin(body.subarray(12));
    else if (kind === "IEND") break;
    place += 12 + length;
  }
  if (head === null) throw new UserError(`${name}: damaged, a PNG must begin with its header chunk`);
  return { head, colourType, packed: joinedBytes(parts), description };
}

function headOf(name: string, body: Uint8Array): [Head, number] {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const [width, height] = [view.getUint32(0), view.getUint32(4)];
  const [depth, colourType, , , interlace] = body.subarray(8);
  const count = PLANES[colourType];
  if (count === undefined) {
    throw new UserError(
      `${name}: a PNG of colour type ${colourType} (3 is a palette, whose numbers are indices) cannot be read as ` +
        "stored; store it as grey, RGB or TIFF",
    );
  }
  if (![1, 2, 4, 8, 16].includes(depth) || (count > 1 && depth < 8) || interlace > 1) {
    throw new UserError(`${name}: damaged, a PNG of ${count} planes has no ${depth} bits`);
  }
  checkSize(name, height, width, count);
  return [{ width, height, depth, count, isInterlaced: interlace === 1 }, colourType];
}

function latin(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

/** Undo the filters of rows in place; `step` is the distance to the pixel on the left in bytes. */
function unfilter(name: string, rows: Uint8Array, start: number, lines: number, length: number, step: number): void {
  for (let line = 0; line < lines; line++) {
    const row = start + line * (length + 1) + 1;
    const above = line === 0 ? -1 : row - length - 1;
    const filter = rows[row - 1];
    if (filter > 4) throw new UserError(`${name}: damaged, row ${line} has filter ${filter}`);
    if (filter === 0) continue;
    for (let at = 0; at < length; at++) {
      const left = at >= step ? rows[row + at - step] : 0;
      const up = above < 0 ? 0 : rows[above + at];
      let guess = left;
      if (filter === 2) guess = up;
      else if (filter === 3) guess = (left + up) >> 1;
      else if (filter === 4) guess = paeth(left, up, above >= 0 && at >= step ? rows[above + at - step] : 0);
      rows[row + at] += guess;
    }
  }
}

function paeth(left: number, up: number, corner: number): number {
  const toLeft = Math.abs(up - corner);
  const toUp = Math.abs(left - corner);
  const toCorner = Math.abs(left + up - 2 * corner);
  if (toLeft <= toUp && toLeft <= toCorner) return left;
  return toUp <= toCorner ? up : corner;
}
