/** Sensors that a `sensor.toml` describes: `simmat.sensors.sensor_toml`. */

import { UserError } from "../../engine";
import { ImageFile, notNodata, typeName } from "../files/image_file";
import { readImage } from "../files/read_image";
import { fromPlanes, ImageChannel, SensorImage } from "./image";
import type { Reading } from "./reading";

/** `[[channel]]`: one plane of the file, and what its numbers mean. */
interface Rule {
  name: string;
  quantity: string;
  unit: string;
  scale: number;
  offset: number;
  nodata: readonly number[];
  valid_range: readonly [number, number] | null;
  plane: number | null;
  band: number | null;
  normalize: { kind: string; floor?: number | null };
}

/** stored * scale + offset of the declared planes, invalid at nodata. */
export async function describedSensor({ name, content, nodata, definition }: Reading): Promise<SensorImage> {
  const image = await readImage(name, content, nodata);
  const [source] = definition.source;
  const count = image.planes.length;
  if (source.planes !== null && source.planes !== count) {
    throw new UserError(
      `${name}: holds ${count} planes of ${typeName(image)}, but source ${source.name} of sensor ${definition.name} is ` +
        `declared with planes = ${source.planes}`,
    );
  }
  const rules: readonly Rule[] = definition.channel;
  const found = rules.map((rule) => planeOf(rule, image, definition.name));
  const channels = rules.map(({ name, quantity, unit, valid_range }): ImageChannel => {
    return { name, quantity, unit, validRange: valid_range };
  });
  return fromPlanes(
    image,
    channels,
    found.map((one) => one.values),
    found.map((one) => one.valid),
  );
}

/** Values in the channel's unit, and where they are valid. */
function planeOf(rule: Rule, image: ImageFile, sensor: string): { values: Float32Array; valid: Uint8Array } {
  const count = image.planes.length;
  const given = rule.band === null ? rule.plane : rule.band - 1;
  const index = given ?? 0;
  if (index >= count || (given === null && count > 1)) {
    throw new UserError(
      `${image.name}: holds ${count} planes, but channel ${rule.name} of sensor ${sensor} has plane = ${given} in its ` +
        `sensor.toml; plane = 0 to ${count - 1} are possible`,
    );
  }
  checkScale(rule, image, index, sensor);
  const stored = image.planes[index];
  const valid = notNodata(stored, [...image.nodata, ...rule.nodata]);
  const values = Float32Array.from(stored, (value) => value * rule.scale + rule.offset);
  const { kind, floor } = rule.normalize;
  if ((kind === "log" || kind === "db") && (floor ?? null) === null) {
    for (let pixel = 0; pixel < values.length; pixel++) if (!(values[pixel] > 0)) valid[pixel] = 0;
  }
  return { values, valid };
}

/** Raise if a file states another scale for a plane than the description; counts are the stored numbers. */
function checkScale(rule: Rule, image: ImageFile, index: number, sensor: string): void {
  const [scale, offset] = image.scales[index] ?? [1, 0];
  if (scale === 1 && offset === 0) return;
  if (rule.scale === 1 && rule.offset === 0 && rule.unit === "count") return;
  // files may store a scale in single precision
  const small = 1e-6 * Math.abs(scale);
  const isScale = Math.abs(rule.scale - scale) <= small + 1e-6 * Math.abs(scale);
  const isOffset = Math.abs(rule.offset - offset) <= small + 1e-6 * Math.abs(offset);
  if (isScale && isOffset) return;
  throw new UserError(
    `${image.name}: states scale ${scale} and offset ${offset} of plane ${index} (from 0), but sensor ${sensor} has ` +
      `scale = ${rule.scale} and offset = ${rule.offset} for channel ${rule.name}; store the values themselves ` +
      "(gdal_translate -unscale -ot Float32)",
  );
}
