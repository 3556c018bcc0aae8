/** PNG files of one plane of 8 or 16 bits, which hold label values exactly (https://www.w3.org/TR/png-3/). */

import { crc32 } from "./crc32";

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);

/** Encode (height * width) values, with the bits of their array. */
export async function encodePng(values: Uint8Array | Uint16Array, width: number, height: number): Promise<Uint8Array> {
  const bytesOfValue = values.BYTES_PER_ELEMENT;
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  view.setUint8(8, 8 * bytesOfValue); // then zeros: grey, deflate, usual filters, not interlaced
  const pixels = await deflated(rowsOf(values, width, height));
  return joined([SIGNATURE, chunk("IHDR", header), chunk("IDAT", pixels), chunk("IEND", new Uint8Array())]);
}

/** The rows, each after a 0 for "not filtered"; values of 16 bits with the high byte first. */
function rowsOf(values: Uint8Array | Uint16Array, width: number, height: number): Uint8Array<ArrayBuffer> {
  const bytesOfValue = values.BYTES_PER_ELEMENT;
  const bytesOfRow = 1 + width * bytesOfValue;
  const rows = new Uint8Array(bytesOfRow * height);
  const view = new DataView(rows.buffer);
  for (let y = 0; y < height; y += 1) {
    const start = y * bytesOfRow + 1;
    for (let x = 0; x < width; x += 1) {
      const value = values[y * width + x];
      if (bytesOfValue === 1) rows[start + x] = value;
      else view.setUint16(start + 2 * x, value);
    }
  }
  return rows;
}

async function deflated(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function chunk(kind: string, data: Uint8Array): Uint8Array {
  const made = new Uint8Array(12 + data.length);
  const view = new DataView(made.buffer);
  view.setUint32(0, data.length);
  made.set(new TextEncoder().encode(kind), 4);
  made.set(data, 8);
  view.setUint32(8 + data.length, crc32(made.subarray(4, 8 + data.length)));
  return made;
}

export function joined(parts: readonly Uint8Array[]): Uint8Array {
  let size = 0;
  for (const part of parts) size += part.length;
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
