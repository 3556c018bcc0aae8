/** The sensors that the page reads, by the names that SimMAT gives them. */

import { UserError } from "../../engine";
import { bytesOf } from "../files/read_image";
import { Manifest, ModelError } from "../manifest";
import { gray, raster, rgb } from "./builtin";
import { depth } from "./depth";
import { checkChannels, ImageChannel, SensorImage } from "./image";
import { landsat8, multispectral, sentinel2 } from "./multispectral";
import { nir, redNir } from "./nir";
import { Reading } from "./reading";
import { thermal } from "./thermal";
import { describedSensor } from "./toml";

/** Reads the file of an image. */
export type Read = (reading: Reading) => Promise<SensorImage>;

const SENSORS: Readonly<Record<string, Read>> = {
  rgb,
  gray,
  raster,
  nir,
  "red-nir": redNir,
  thermal,
  depth,
  multispectral,
  sentinel2,
  landsat8,
};

/** What the page states of its sensor. */
export interface SensorDescription {
  name: string;
  definition: any;
  channels: readonly { name: string; quantity: string; unit: string; valid_range: [number, number] | null }[];
}

export interface Sensor {
  load(files: readonly File[], options: Readonly<Record<string, string>>): Promise<SensorImage>;
}

/** Return the sensor of a page; ModelError for one that the page does not read. */
export function sensorOf(description: SensorDescription, manifest: Manifest): Sensor {
  const read = description.definition ? describedSensor : SENSORS[description.name];
  if (read === undefined) throw new ModelError(`the page has no reader for modality ${description.name}`);
  const expected = expectedChannels(description);
  return {
    async load(files, options) {
      if (files.length !== 1) throw new UserError(`an image of ${manifest.modality} is one file, got ${files.length}`);
      const content = await bytesOf(files[0]);
      const image = await read({
        name: files[0].name,
        content,
        ...parsedOptions(options),
        definition: description.definition,
      });
      checkChannels(image, expected);
      return image;
    },
  };
}

function expectedChannels(description: SensorDescription): ImageChannel[] {
  return description.channels.map(({ valid_range, ...channel }) => ({ ...channel, validRange: valid_range }));
}

function parsedOptions(given: Readonly<Record<string, string>>) {
  const options: Record<string, string> = {};
  for (const [name, text] of Object.entries(given)) if (text.trim()) options[name] = text.trim();
  const { nodata, ...others } = options;
  if (nodata === undefined) return { options: others, nodata: null };
  const number = Number(nodata);
  if (!Number.isFinite(number)) throw new UserError(`nodata must be a number, got ${nodata}`);
  return { options: others, nodata: number };
}
