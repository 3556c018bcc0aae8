/** Elements of a page. What comes from files is put in as text, never as HTML. */

/**
 * Make an element: functions become listeners ("onclick"), true an attribute without a value; null is no child.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Readonly<Record<string, string | number | boolean | ((event: any) => void)>>} attributes
 * @param {(Node | string | null)[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false) made.setAttribute(name, String(value));
  }
  for (const child of children) {
    if (child !== null) made.append(child);
  }
  return made;
}

/**
 * The element of the page with an id.
 * @template {HTMLElement} [Type=HTMLElement]
 * @param {string} id
 * @returns {Type}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element #${id}`);
  return /** @type {Type} */ (found);
}

/**
 * A square of a colour, for lists and tables.
 * @param {string} colour
 */
export function swatch(colour) {
  const made = element("span", { class: "swatch" });
  made.style.backgroundColor = colour;
  return made;
}

const KEPT_MS = 60_000; // a download may be slow to begin

/**
 * Download a file.
 * @param {string} name
 * @param {Blob} content
 */
export function download(name, content) {
  const href = URL.createObjectURL(content);
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), KEPT_MS);
}

/**
 * @param {HTMLElement} button
 * @param {boolean} isPressed
 */
export function setPressed(button, isPressed) {
  button.setAttribute("aria-pressed", String(isPressed));
}

/**
 * Scroll a list, and not the page, so far that an item of it is in view below what sticks to its top.
 * @param {HTMLElement} list
 * @param {HTMLElement} item
 * @param {number} stickyHeight
 */
export function revealIn(list, item, stickyHeight = 0) {
  const above = item.getBoundingClientRect().top - list.getBoundingClientRect().top - stickyHeight;
  const below = item.getBoundingClientRect().bottom - list.getBoundingClientRect().bottom;
  if (above < 0) list.scrollTop += above;
  else if (below > 0) list.scrollTop += below;
}

/**
 * Size a canvas to its place on the screen, which clears it; width and height are in CSS pixels, as is the context.
 * @param {HTMLCanvasElement} canvas
 */
export function fitCanvas(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.scale(ratio, ratio);
  return { context, width, height };
}
