/** Read numpy's npy arrays: (H, W), or (planes, height, width). */

import { UserError } from "../../engine";
import { checkSize, ImageFile, Stored } from "./image_file";

type Get = (view: DataView, offset: number, little: boolean) => number;

/** Kind and bytes of a number -> how to make an array of them, and how to read one. */
const TYPES: Readonly<Record<string, [new (length: number) => Stored, Get]>> = {
  b1: [Uint8Array, (view, at) => view.getUint8(at)],
  u1: [Uint8Array, (view, at) => view.getUint8(at)],
  i1: [Int8Array, (view, at) => view.getInt8(at)],
  u2: [Uint16Array, (view, at, little) => view.getUint16(at, little)],
  i2: [Int16Array, (view, at, little) => view.getInt16(at, little)],
  u4: [Uint32Array, (view, at, little) => view.getUint32(at, little)],
  i4: [Int32Array, (view, at, little) => view.getInt32(at, little)],
  f2: [Float32Array, (view, at, little) => half(view.getUint16(at, little))],
  f4: [Float32Array, (view, at, little) => view.getFloat32(at, little)],
  f8: [Float64Array, (view, at, little) => view.getFloat64(at, little)],
};

export async function readNpy(name: string, content: Uint8Array<ArrayBuffer>): Promise<ImageFile> {
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  const isFirst = content[6] === 1;
  const length = isFirst ? view.getUint16(8, true) : view.getUint32(8, true);
  const start = (isFirst ? 10 : 12) + length;
  const head = new TextDecoder("latin1").decode(content.subarray(start - length, start));
  const order = /'descr':\s*'([<>|=]?)([a-zA-Z]\d+)'/.exec(head);
  const shape = shapeOf(name, head);
  const isFortran = /'fortran_order':\s*True/.test(head);
  const known = order && TYPES[order[2]];
  if (!order || !known) {
    throw new UserError(
      `${name}: values of type ${order?.[2] ?? "unknown"} are not supported; store them as float32 or integers of at ` +
        "most 32 bits",
    );
  }
  const [count, height, width] = shape;
  checkSize(name, height, width, count);
  const bytes = Number(order[2].slice(1));
  if (content.length < start + count * height * width * bytes) {
    throw new UserError(`${name}: damaged or cut short, it holds less than ${count} x ${height} x ${width} values`);
  }
  const [make, get] = known;
  const little = order[1] !== ">";
  const size = height * width;
  const planes: Stored[] = [];
  for (let plane = 0; plane < count; plane++) {
    const values = new make(size);
    for (let pixel = 0; pixel < size; pixel++) {
      let at = plane * size + pixel;
      // the first axis varies fastest
      if (isFortran) at = ((pixel % width) * height + Math.floor(pixel / width)) * count + plane;
      values[pixel] = get(view, start + at * bytes, little);
    }
    planes.push(values);
  }
  return {
    name,
    format: "npy",
    height,
    width,
    planes,
    colour: count === 1 ? "gray" : "planes",
    isBool: order[2] === "b1",
    description: "",
    nodata: [],
    scales: [],
    alpha: false,
    bands: [],
  };
}

function shapeOf(name: string, head: string): [number, number, number] {
  const found = /'shape':\s*\(([\d,\s]*)\)/.exec(head);
  const shape = (found?.[1] ?? "").split(",").map((one) => one.trim()).filter(Boolean).map(Number);
  if (shape.length === 2) return [1, shape[0], shape[1]];
  if (shape.length !== 3) {
    throw new UserError(`${name}: an array must be (H, W) or (P, H, W), got shape (${shape.join(", ")})`);
  }
  if (shape[0] > 64 && shape[2] <= 16) {
    throw new UserError(
      `${name}: an array of three axes is read as (planes, height, width), but shape (${shape.join(", ")}) looks like ` +
        "(height, width, planes); save it as np.save(path, array.transpose(2, 0, 1))",
    );
  }
  return [shape[0], shape[1], shape[2]];
}

/** The value of a 16-bit float, IEEE 754. */
function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
