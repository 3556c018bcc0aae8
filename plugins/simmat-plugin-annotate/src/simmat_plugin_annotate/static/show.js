/** Questions, and the names, numbers and units of channels. */

import { decimals } from "./shared/numbers.js";

/** Open a dialog; returns the value of the button that closes it, "" for Esc. */
export function ask(dialog) {
  dialog.dispatchEvent(new Event("close")); // answers a question before this one, whose own event comes after its closing
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", function closed() {
      if (dialog.open) return; // that late event
      dialog.removeEventListener("close", closed);
      resolve(dialog.returnValue);
    });
  });
}

/** Unit and scale of the numbers that are shown of a channel, such as °C of kelvin: shown = factor * value + offset. */
export function shownUnit({ look }) {
  return { name: look.unit === "1" ? "" : look.unit, factor: look.factor, offset: look.offset };
}

export function shownValue(value, channel, range) {
  const { name, factor, offset } = shownUnit(channel);
  return `${decimals(factor * value + offset, factor * range)}${name ? ` ${name}` : ""}`;
}

/** Name, unit and wavelength of a channel. */
export function describe(channel) {
  const { name } = shownUnit(channel);
  const wavelength = channel.wavelength_um ? `, ${channel.wavelength_um} µm` : "";
  return `${channel.name}${name ? ` [${name}]` : ""}${wavelength}`;
}

export function clock(date) {
  return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}
