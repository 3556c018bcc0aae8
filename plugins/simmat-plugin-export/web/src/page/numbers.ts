/** Numbers, units and counts as people read them. */

import type { Channel } from "../engine";

/** A measured number, to four digits, without an exponent where it can be. */
export function fourDigits(value: number): string {
  if (!Number.isFinite(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 1e7 || size < 1e-4) return value.toExponential(2);
  const places = Math.max(0, 3 - Math.floor(Math.log10(size)));
  return value.toLocaleString("en", { minimumFractionDigits: Math.min(places, 4), maximumFractionDigits: Math.min(places, 4) });
}

export function count(number: number, one: string, many = `${one}s`): string {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** The unit in which a channel is shown, and how its values become that unit. */
export function shownUnit(channel: Channel): { unit: string; factor: number; offset: number } {
  const shown = channel.shown ?? { unit: channel.unit, factor: 1, offset: 0 };
  return { ...shown, unit: shown.unit === "1" ? "" : shown.unit };
}

/** "thermal [°C]" */
export function channelTitle(channel: Channel): string {
  const { unit } = shownUnit(channel);
  return unit ? `${channel.name} [${unit}]` : channel.name;
}

/** "about 3 s", "about 2 min" */
export function duration(seconds: number): string {
  if (seconds < 90) return `about ${Math.max(1, Math.round(seconds))} s`;
  return `about ${Math.round(seconds / 60)} min`;
}

/** "a, b and c" */
export function listed(names: readonly string[]): string {
  if (names.length < 2) return names.join("");
  return `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]}`;
}

/** The first names of many: "a, b, c and 9 more". */
export function fewOf(names: readonly string[], most = 4): string {
  if (names.length <= most) return listed(names);
  return `${names.slice(0, most).join(", ")} and ${names.length - most} more`;
}
