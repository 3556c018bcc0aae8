/** `depth`: distance along the optical axis in metres: `simmat_plugin_depth.depth`. */

import { UserError } from "../../engine";
import { ImageFile, isFloat, typeName } from "../files/image_file";
import { readImage } from "../files/read_image";
import { fromPlanes, ImageChannel, SensorImage } from "./image";
import type { Reading } from "./reading";
import { measuredOf, physical, requireMeasured, requireOnePlane, requireUnscaled, statedUnit, Unit } from "./units";

const METRE: Unit = { name: "m", per: 1, offset: 0 };
const CENTIMETRE: Unit = { name: "cm", per: 100, offset: 0 };
const MILLIMETRE: Unit = { name: "mm", per: 1000, offset: 0 };
const KNOWN = [METRE, CENTIMETRE, MILLIMETRE];
/** Values of the option `unit`. */
const UNITS: Readonly<Record<string, Unit>> = {
  m: METRE,
  cm: CENTIMETRE,
  mm: MILLIMETRE,
  tum: { name: "1/5000 m", per: 5000, offset: 0 },
  kitti: { name: "1/256 m", per: 256, offset: 0 },
};
const DEPTH: ImageChannel = { name: "depth", quantity: "depth", unit: "m", validRange: [0.001, 300] };
/** Written by some cameras, besides 0. */
const NO_RETURN = 65535;

export async function depth({ name, content, nodata, options }: Reading): Promise<SensorImage> {
  const image = await readImage(name, content, nodata);
  requireOnePlane(image, "depth");
  requireUnscaled(image, "depth");
  const stored = image.planes[0];
  const valid = measuredOf(image);
  if (stored instanceof Uint16Array) {
    for (let pixel = 0; pixel < stored.length; pixel++) if (stored[pixel] === NO_RETURN) valid[0][pixel] = 0;
  }
  const metres = Float32Array.from(physical(unitOf(image, UNITS[options.unit] ?? null), stored));
  const found = fromPlanes(image, [DEPTH], [metres], valid);
  return requireMeasured(found, metres, valid[0], "give the unit of the files with the option unit");
}

function unitOf(image: ImageFile, option: Unit | null): Unit {
  const stated = statedUnit(image, KNOWN, option);
  if (stated !== null) return stated;
  if (isFloat(image.planes[0])) return METRE;
  const type = typeName(image);
  if (type === "uint16" || type === "int16") return MILLIMETRE;
  throw new UserError(
    `${image.name}: ${type} values have no conventional unit (16-bit integers are millimetres, floats metres); if you ` +
      "know it, give it with the option unit",
  );
}
