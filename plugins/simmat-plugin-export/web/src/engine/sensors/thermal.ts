/** `thermal`: one plane of a long-wave infrared camera: `simmat_plugin_thermal.adapter`. */

import { UserError } from "../../engine";
import { notNodata } from "../files/image_file";
import { readImage } from "../files/read_image";
import { Radiometric, readRadiometric, Settings } from "./radiometric";
import { fromPlanes, ImageChannel, SensorImage } from "./image";
import { numberOption, Reading } from "./reading";
import { physical, requireMeasured, requireOnePlane, requireUnscaled, statedUnit, Unit, validOf } from "./units";

const ZERO_C = 273.15;
const KELVIN: Unit = { name: "K", per: 1, offset: 0 };
const CENTI_KELVIN: Unit = { name: "cK", per: 100, offset: 0 };
const MILLI_KELVIN: Unit = { name: "mK", per: 1000, offset: 0 };
const CELSIUS: Unit = { name: "degC", per: 1, offset: ZERO_C };
const KELVIN_64: Unit = { name: "K64", per: 64, offset: 0 };
const KNOWN = [KELVIN, CENTI_KELVIN, MILLI_KELVIN, CELSIUS, KELVIN_64];
/** Values of the option `unit`. */
const UNITS: Readonly<Record<string, Unit>> = {
  K: KELVIN,
  cK: CENTI_KELVIN,
  mK: MILLI_KELVIN,
  C: CELSIUS,
  K64: KELVIN_64,
};
const NO_UNIT = ["count", "counts", "DN"];
const RANGE: readonly [number, number] = [150, 2500];
const TEMPERATURE: ImageChannel = {
  name: "thermal",
  quantity: "brightness_temperature",
  unit: "K",
  validRange: RANGE,
};
const COUNTS: ImageChannel = { name: "thermal", quantity: "counts", unit: "count", validRange: null };
const ADVICE = "give the unit of the files with the option unit: K, cK, mK, C or K64; left empty, it is the unit in the file";

/** Kelvin if the file or the user states it, else counts. */
export async function thermal(reading: Reading): Promise<SensorImage> {
  const { name, content, nodata } = reading;
  const option = UNITS[reading.options.unit] ?? null;
  const settings = settingsOf(reading);
  if (/\.jpe?g$/i.test(name)) {
    const found = await readRadiometric(name, content, settings);
    if (found !== null) return radiometricImage(reading, found, option, settings);
    if (option !== null) {
      throw new UserError(
        `${name}: a JPEG with no temperatures, so it has no values in ${option.name}; leave the option unit empty`,
      );
    }
  }
  refuseSettings(name, settings);
  const image = await readImage(name, content, nodata);
  requireOnePlane(image, "thermal");
  const unit = statedUnit(image, KNOWN, option, NO_UNIT);
  const valid = validOf(image);
  if (unit === null) return fromPlanes(image, [COUNTS], image.planes, valid);
  requireUnscaled(image, "thermal");
  const kelvin = Float32Array.from(physical(unit, image.planes[0]));
  return requireMeasured(fromPlanes(image, [TEMPERATURE], [kelvin], valid), kelvin, valid[0], ADVICE);
}

/** What a camera measured, in kelvin if that is known. */
function radiometricImage(
  { name, nodata }: Reading,
  found: Radiometric,
  option: Unit | null,
  settings: Settings,
): SensorImage {
  const file = { name, height: found.height, width: found.width };
  const valid = notNodata(found.values, nodata === null ? [] : [nodata]);
  if (!found.isKelvin) {
    refuseSettings(name, settings);
    if (option === null) return fromPlanes(file, [COUNTS], [found.values], [valid]);
    const kelvin = Float32Array.from(physical(option, found.values));
    return requireMeasured(fromPlanes(file, [TEMPERATURE], [kelvin], [valid]), kelvin, valid, ADVICE);
  }
  if (option !== null) {
    throw new UserError(
      `${name}: has temperatures in kelvin, so it has no values in ${option.name}; leave the option unit empty`,
    );
  }
  if (nodata !== null) {
    throw new UserError(`${name}: has temperatures in kelvin, so it stores no number ${nodata}; leave nodata empty`);
  }
  const kelvin = Float32Array.from(found.values);
  const isThere = kelvin.some((value) => value >= RANGE[0] && value <= RANGE[1]);
  if (Object.keys(settings).length && !isThere) {
    throw new UserError(
      `${name}: with these options no pixel has a temperature from ${RANGE.join(" to ")} K; correct these options`,
    );
  }
  return requireMeasured(fromPlanes(file, [TEMPERATURE], [kelvin], [valid]), kelvin, valid, ADVICE);
}

/** The parameters of a FLIR camera that the options replace. */
function settingsOf(reading: Reading): Settings {
  const emissivity = numberOption(reading, "emissivity", 1e-9, 1);
  const distance = numberOption(reading, "distance_m", 0, 10_000);
  const reflected = numberOption(reading, "reflected_c", -ZERO_C + 1e-9, 2000);
  return {
    ...(emissivity !== null && { emissivity }),
    ...(distance !== null && { distanceM: distance }),
    ...(reflected !== null && { reflectedK: reflected + ZERO_C }),
  };
}

/** Raise UserError if options would correct a file without the constants that this needs. */
function refuseSettings(name: string, settings: Settings): void {
  if (!Object.keys(settings).length) return;
  throw new UserError(
    `${name}: emissivity, distance_m and reflected_c correct temperatures by the calibration constants of the camera, ` +
      "which only FLIR's radiometric files hold, and this one does not; leave these options empty",
  );
}
