/** Zip files that only store, because the PNG files in them are compressed (PKWARE's APPNOTE 6.3.10). */

import { crc32 } from "./crc32";

export interface ZippedFile {
  name: string;
  bytes: Uint8Array;
}

const VERSION = 20;
const UTF8_NAMES = 0x0800;

/** Fails for more than 65,535 files or 4 GiB, which need another format. */
export function zipped(files: readonly ZippedFile[], now = new Date()): Blob {
  const parts: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let offset = 0;
  for (const { name, bytes } of files) {
    const encodedName = new TextEncoder().encode(name);
    const common = commonFields(encodedName, bytes, now);
    const local = record(0x04034b50, [common, encodedName]);
    parts.push(local, bytes);
    directory.push(directoryEntry(common, encodedName, offset));
    offset += local.length + bytes.length;
  }
  let directorySize = 0;
  for (const entry of directory) directorySize += entry.length;
  if (files.length > 0xffff || offset + directorySize > 0xffffffff) {
    throw new Error("These results are too large for one zip file. Save them with the other buttons, or one image after the other.");
  }
  const end = new DataView(new ArrayBuffer(18));
  end.setUint16(4, files.length, true);
  end.setUint16(6, files.length, true);
  end.setUint32(8, directorySize, true);
  end.setUint32(12, offset, true);
  const all = [...parts, ...directory, record(0x06054b50, [new Uint8Array(end.buffer)])];
  return new Blob(all as Uint8Array<ArrayBuffer>[], { type: "application/zip" });
}

/** The fields that are the same before the file and in the directory, from "version needed" to "extra field length". */
function commonFields(name: Uint8Array, bytes: Uint8Array, now: Date): Uint8Array {
  const fields = new DataView(new ArrayBuffer(26));
  fields.setUint16(0, VERSION, true);
  fields.setUint16(2, UTF8_NAMES, true);
  // local time, in steps of two seconds
  fields.setUint16(6, (now.getHours() << 11) | (now.getMinutes() << 5) | (now.getSeconds() >> 1), true);
  fields.setUint16(8, ((now.getFullYear() - 1980) << 9) | ((now.getMonth() + 1) << 5) | now.getDate(), true);
  fields.setUint32(10, crc32(bytes), true);
  fields.setUint32(14, bytes.length, true);
  fields.setUint32(18, bytes.length, true);
  fields.setUint16(22, name.length, true);
  return new Uint8Array(fields.buffer);
}

function directoryEntry(common: Uint8Array, name: Uint8Array, offset: number): Uint8Array {
  const version = Uint8Array.of(VERSION, 0);
  const rest = new DataView(new ArrayBuffer(14)); // comment, disk and attributes are zero
  rest.setUint32(10, offset, true);
  return record(0x02014b50, [version, common, new Uint8Array(rest.buffer), name]);
}

function record(signature: number, parts: readonly Uint8Array[]): Uint8Array {
  let size = 4;
  for (const part of parts) size += part.length;
  const made = new Uint8Array(size);
  new DataView(made.buffer).setUint32(0, signature, true);
  let at = 4;
  for (const part of parts) {
    made.set(part, at);
    at += part.length;
  }
  return made;
}
