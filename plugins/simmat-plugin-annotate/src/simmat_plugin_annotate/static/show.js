/** Names, numbers and small elements. Everything that comes from files goes into the page as text. */

/** Make an element; `text` and attributes are never read as HTML. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

export function byId(id) {
  return document.getElementById(id);
}

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

/** A canvas cleared to be drawn in CSS pixels, with their numbers across and down. */
export function cleared(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio || 1;
  Object.assign(canvas, { width: width * ratio, height: height * ratio });
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return { context, width, height };
}

export function press(button, pressed) {
  button.setAttribute("aria-pressed", String(pressed));
}

/** Unit and scale of the numbers that are shown of a channel, such as °C of kelvin: shown = factor * value + offset. */
export function shownUnit({ look }) {
  return { name: look.unit === "1" ? "" : look.unit, factor: look.factor, offset: look.offset };
}

/** A number to read, with as many digits as a range of values needs. */
export function digits(value, range) {
  if (!Number.isFinite(value)) return "–";
  const places = Math.min(8, Math.max(0, 2 - Math.floor(Math.log10(Math.abs(range) || 1))));
  return value.toFixed(places);
}

export function shownValue(value, channel, range) {
  const { name, factor, offset } = shownUnit(channel);
  return `${digits(factor * value + offset, factor * range)}${name ? ` ${name}` : ""}`;
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
