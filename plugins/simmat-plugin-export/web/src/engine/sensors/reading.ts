/** What a sensor is given to read a file. */

import { UserError } from "../../engine";

/** A file of a sensor, what the user says of it, and what the model states of its sensor. */
export interface Reading {
  name: string;
  content: Uint8Array<ArrayBuffer>;
  /** Option -> its text; options that are left empty are missing. */
  options: Readonly<Record<string, string>>;
  /** The stored number that the user calls nodata; null for none. */
  nodata: number | null;
  /** The `sensor.toml` of a sensor that has one. */
  definition: any;
}

/** The number of an option; null if it is left empty, UserError if it is none. */
export function numberOption(reading: Reading, name: string, low: number, high: number): number | null {
  const text = reading.options[name];
  if (text === undefined) return null;
  const number = Number(text);
  if (!(number >= low && number <= high)) {
    throw new UserError(`option ${name} must be a number from ${low} to ${high}, got ${text}`);
  }
  return number;
}
