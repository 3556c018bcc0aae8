/** Answers the cases of the Python tests, in Node: lines of json [name, argument] to lines of json. */

import { argmax, Mask, Planes } from "../engine/arrays";
import { ContractDocument, imageWarning, InputContract } from "../engine/contract";
import { Spread, spreadWarning } from "../engine/spread";
import { clickPlaces, coarseFirst, gridPoints, suppress } from "../engine/everything";
import { Letterbox, resized } from "../engine/letterbox";
import { measure } from "../engine/measurement";
import { fromPlanes } from "../engine/sensors/image";
import { sensorOf } from "../engine/sensors/sensor";
import { planWindows, promptWindows } from "../engine/windows";

interface Image {
  channels: any[];
  height: number;
  width: number;
  planes: number[][];
}

function imageOf({ channels, height, width, planes }: Image) {
  const stored = planes.map((plane) => Float32Array.from(plane, (value) => value ?? NaN));
  const valid = stored.map((plane) => new Uint8Array(plane.length).fill(1));
  return fromPlanes({ name: "image", height, width }, channels, stored, valid);
}

function maskOf(rows: number[][]): Mask {
  return { height: rows.length, width: rows[0].length, data: Uint8Array.from(rows.flat()) };
}

const CASES: Record<string, (argument: any) => unknown> = {
  planWindows: ([size, tile, overlap]) => planWindows(size, tile, overlap),
  promptWindows: ([low, high, size, tile]) => [...promptWindows(low, high, size, tile)],
  gridPoints: ([hw, size, aspect]) => coarseFirst(gridPoints(new Letterbox(hw, size, aspect))),
  resized: ([rows, size]) => {
    const plane: Planes = { ...maskOf(rows), count: 1, data: Float32Array.from(rows.flat()) };
    return [...resized(plane, size).data];
  },
  suppress: ([masks, scores, overlap]) => suppress(masks.map(maskOf), scores, overlap),
  clickPlaces: ([rows, parts]) => {
    return clickPlaces(Float32Array.from(rows.flat()), rows[0].length, parts.map(maskOf), [rows.length, rows[0].length]);
  },
  measure: ([image, objects]) => {
    const crops = objects.map(({ window, crop }: any) => ({ window, crop: maskOf(crop) }));
    return measure(imageOf(image), crops);
  },
  spread: ([spreads, image]: [Spread[], Image]) => spreadWarning(spreads, imageOf(image)),
  contract: ([document, image]: [ContractDocument, Image]) => imageWarning(new InputContract(document), imageOf(image)),
  read: async ([sensor, name, content, options]) => {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const reader = sensorOf(sensor, { modality: sensor.name } as any);
    const image = await reader.load([new File([bytes], name)], options);
    return { planes: image.data.map((plane) => [...plane]), valid: image.valid.map((plane) => [...plane]) };
  },
  argmax: (values) => argmax(values),
};

declare const process: any;

async function answer(line: string): Promise<void> {
  const [name, argument] = JSON.parse(line);
  try {
    console.log(JSON.stringify({ result: await CASES[name](argument) }));
  } catch (error) {
    console.log(JSON.stringify({ error: (error as Error).message, kind: (error as Error).constructor.name }));
  }
}

let text = "";
for await (const part of process.stdin) text += part;
for (const line of text.trim().split("\n")) await answer(line);
