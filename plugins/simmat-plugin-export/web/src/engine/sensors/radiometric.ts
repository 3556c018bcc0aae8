/**
 * Radiometric JPEGs: the raw image that a thermal camera stores besides the picture, in kelvin if possible:
 * `simmat_plugin_thermal.radiometric`.
 *
 * FLIR's records are in APP1 segments (layout as documented by ExifTool, Image::ExifTool::FLIR), with the calibration
 * constants of the camera. DJI's R-JPEG has 16-bit raw values in APP3 or APP4 segments, without documented constants.
 */

import { joinedBytes } from "../files/bytes";
import { UserError } from "../../engine";
import { checkSize } from "../files/image_file";
import { frameOf, segmentsOf } from "../files/jpeg";
import { readPng } from "../files/png";

const APP1 = 0xe1;
const RAW_SEGMENTS = [0xe3, 0xe4];
/** The picture may have so many times the raw image's sides: twice in M30T. */
const PICTURE_SCALES = [1, 2, 4];
/** "FLIR", 0, 1, index of the segment, index of the last one. */
const SEGMENT_HEAD = 8;
/** Bytes of the header of the records, and of a directory entry. */
const RECORDS_HEAD = 64;
const ENTRY = 32;
/** Types of records. */
const RAW = 1;
const CAMERA = 32;
const RAW_HEAD = 32;
const CAMERA_BYTES = 784;
const ZERO_C = 273.15;

/** Parameters that replace those of the camera. */
export interface Settings {
  emissivity?: number;
  distanceM?: number;
  reflectedK?: number;
}

/** The parameters of a FLIR file that convert raw values to kelvin, see `FlirParameters` in Python. */
interface Parameters {
  emissivity: number;
  distanceM: number;
  reflectedK: number;
  airK: number;
  windowK: number;
  window: number;
  humidity: number;
  r1: number;
  b: number;
  f: number;
  o: number;
  r2: number;
  alpha: readonly [number, number];
  beta: readonly [number, number];
  x: number;
}

/** The measurement in a radiometric JPEG. */
export interface Radiometric {
  /** Kelvin by the settings of the camera, or counts if the file has no constants. */
  values: Float32Array | Uint16Array;
  isKelvin: boolean;
  height: number;
  width: number;
}

/** Read the raw image of a radiometric JPEG; null for an ordinary JPEG. */
export async function readRadiometric(
  name: string,
  content: Uint8Array<ArrayBuffer>,
  settings: Settings,
): Promise<Radiometric | null> {
  const segments = [...segmentsOf(content)];
  const isFlir = (payload: Uint8Array) => {
    return payload.length >= SEGMENT_HEAD && ascii(payload, 0, 4) === "FLIR" && payload[4] === 0;
  };
  const flir = segments.filter(({ marker, payload }) => marker === APP1 && isFlir(payload));
  if (flir.length) {
    const parts = flir.map(({ payload }) => payload).sort((one, other) => one[6] - other[6]);
    try {
      return await readFlir(name, joinedBytes(parts.map((part) => part.subarray(SEGMENT_HEAD))), settings);
    } catch (error) {
      if (error instanceof UserError) throw error;
      throw new UserError(`${name}: its FLIR records are damaged (${(error as Error).message})`);
    }
  }
  const picture = frameOf(content);
  for (const wanted of RAW_SEGMENTS) {
    const raw = joinedBytes(segments.filter(({ marker }) => marker === wanted).map(({ payload }) => payload));
    for (const times of PICTURE_SCALES) {
      if (picture === null || !raw.length) continue;
      const [height, width] = [Math.floor(picture.height / times), Math.floor(picture.width / times)];
      const fits = height * times === picture.height && width * times === picture.width;
      if (fits && raw.length === 2 * height * width) {
        return { values: counts(raw, height * width, true), isKelvin: false, height, width };
      }
    }
  }
  return null; // segments of another program, or none
}

function ascii(bytes: Uint8Array, start: number, length: number): string {
  return Array.from(bytes.subarray(start, start + length), (byte) => String.fromCharCode(byte)).join("");
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function counts(bytes: Uint8Array, length: number, little: boolean): Uint16Array {
  const view = viewOf(bytes);
  return Uint16Array.from({ length }, (_, index) => view.getUint16(2 * index, little));
}

async function readFlir(name: string, records: Uint8Array<ArrayBuffer>, settings: Settings): Promise<Radiometric> {
  const found = recordsOf(name, records);
  const raw = await rawImage(name, found.get(RAW));
  const camera = parametersOf(found.get(CAMERA));
  if (camera === null) return { ...raw, isKelvin: false };
  return { ...raw, values: kelvinOf({ ...camera, ...settings }, raw.values), isKelvin: true };
}

/** Type -> first record; the directory can have either byte order. */
function recordsOf(name: string, content: Uint8Array<ArrayBuffer>): Map<number, Uint8Array<ArrayBuffer>> {
  if (content.length < RECORDS_HEAD || !["FFF\0", "AFF\0"].includes(ascii(content, 0, 4))) {
    throw new UserError(`${name}: its FLIR records are damaged: they have a wrong signature`);
  }
  const view = viewOf(content);
  for (const little of [false, true]) {
    const [version, offset, count] = [20, 24, 28].map((place) => view.getUint32(place, little));
    if (!(version >= 100 && version < 200 && offset + count * ENTRY <= content.length)) continue;
    const found = new Map<number, Uint8Array<ArrayBuffer>>();
    for (let entry = 0; entry < count; entry++) {
      const place = offset + entry * ENTRY;
      const kind = view.getUint16(place, little);
      const start = view.getUint32(place + 12, little);
      const length = view.getUint32(place + 16, little);
      if (!length) continue;
      if (start + length > content.length) {
        throw new UserError(`${name}: damaged or truncated, a FLIR record ends beyond the file`);
      }
      if (!found.has(kind)) found.set(kind, content.subarray(start, start + length));
    }
    return found;
  }
  throw new UserError(
    `${name}: its FLIR records are damaged, their directory is larger than their ${content.length} bytes`,
  );
}

/** Whether a record, whose first value is 2, has its lowest byte first. */
function isLittle(record: Uint8Array): boolean {
  return record[0] === 2 && record[1] === 0;
}

/** The raw values, stored as such, or as a 16-bit PNG with swapped bytes. */
async function rawImage(name: string, record: Uint8Array<ArrayBuffer> | undefined) {
  if (record === undefined) throw new UserError(`${name}: its FLIR records contain no raw image`);
  const little = isLittle(record);
  const view = viewOf(record);
  const [width, height] = [view.getUint16(2, little), view.getUint16(4, little)];
  checkSize(name, height, width, 1);
  const body = record.subarray(RAW_HEAD);
  if (body[0] === 0x89 && ascii(body, 1, 3) === "PNG") {
    const picture = await readPng(name, body);
    const [plane] = picture.planes;
    if (picture.height !== height || picture.width !== width || !(plane instanceof Uint16Array)) {
      throw new UserError(`${name}: the raw image in its FLIR records is damaged`);
    }
    return { values: plane.map((value) => ((value & 0xff) << 8) | (value >> 8)), height, width };
  }
  if (body[0] === 0xff && body[1] === 0xd8) {
    throw new UserError(`${name}: its raw image is JPEG-LS, which this page does not read; save it as TIFF`);
  }
  if (body.length < 2 * width * height) {
    throw new UserError(
      `${name}: damaged or truncated, its raw image of ${width}x${height} has ${body.length} bytes`,
    );
  }
  return { values: counts(body, width * height, little), height, width };
}

/** The constants of a camera record; null if they are missing or impossible. */
function parametersOf(record: Uint8Array | undefined): Parameters | null {
  if (record === undefined || record.length < CAMERA_BYTES) return null;
  const little = isLittle(record);
  const view = viewOf(record);
  const floats = (start: number, count: number) => {
    return Array.from({ length: count }, (_, index) => view.getFloat32(start + 4 * index, little));
  };
  const [emissivity, distanceM, reflectedK, airK, windowK, window, , humidity] = floats(32, 8);
  const [r1, b, f] = floats(88, 3);
  const [alpha1, alpha2, beta1, beta2, x] = floats(112, 5);
  const o = view.getInt32(776, little);
  const r2 = view.getFloat32(780, little);
  const numbers = [f, alpha1, alpha2, beta1, beta2, x, distanceM, humidity];
  const positive = [emissivity, reflectedK, airK, windowK, window, r1, b, r2];
  if (![...numbers, ...positive].every(Number.isFinite)) return null;
  if (Math.min(...positive) <= 0 || Math.min(distanceM, humidity) < 0) return null;
  return {
    emissivity,
    distanceM,
    reflectedK,
    airK,
    windowK,
    window,
    // some cameras write percent
    humidity: humidity > 2 ? humidity / 100 : humidity,
    r1,
    b,
    f,
    o,
    r2,
    alpha: [alpha1, alpha2],
    beta: [beta1, beta2],
    x,
  };
}

/**
 * Raw values as the object temperature in kelvin; NaN where it is undefined.
 *
 * The radiation of object, mirrored surroundings, air and window is separated as in Minkina and Dudzik, Infrared
 * Thermography (2009), section 2.3, with half of the air on each side of the window.
 */
function kelvinOf(camera: Parameters, raw: ArrayLike<number>): Float32Array {
  const { r1, b, f, o, r2, emissivity, window } = camera;
  const rawOf = (kelvin: number) => r1 / (r2 * (Math.exp(b / kelvin) - f)) - o;
  const half = airOf(camera);
  const passed = half * window * half; // object -> air -> window -> air -> camera
  let added = passed * (1 - emissivity) * rawOf(camera.reflectedK);
  added += ((1 - half) * window * half + (1 - half)) * rawOf(camera.airK);
  added += (1 - window) * half * rawOf(camera.windowK);
  return Float32Array.from(raw, (value) => {
    const alone = (value - added) / (passed * emissivity);
    const kelvin = b / Math.log(r1 / (r2 * (alone + o)) + f);
    return Number.isFinite(kelvin) ? kelvin : NaN;
  });
}

/** The transmission of half of the air; Minkina and Dudzik, eq. 2.24. */
function airOf({ airK, humidity, distanceM, alpha, beta, x }: Parameters): number {
  const celsius = airK - ZERO_C;
  const water =
    humidity * Math.exp(1.5587 + 0.06939 * celsius - 2.7816e-4 * celsius ** 2 + 6.8455e-7 * celsius ** 3);
  const path = Math.sqrt(distanceM / 2);
  const vapour = Math.sqrt(water);
  const [first, second] = alpha.map((a, index) => -path * (a + beta[index] * vapour));
  return x * Math.exp(first) + (1 - x) * Math.exp(second);
}
