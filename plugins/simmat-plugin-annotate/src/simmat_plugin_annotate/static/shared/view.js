/** Which part of the image is on the screen: screen = image * zoom + offset, in CSS pixels. */

/** @import { Place, Size } from "./masks.js" */

const LARGEST_ZOOM = 64; // screen pixels for a pixel of the image
const LARGEST_REVEALED_ZOOM = 8;
const MARGIN_PX = 48; // of the image stay in view
const SMALLEST_SEEN_PX = 12; // a smaller object is not seen

export class View {
  zoom = 1;
  /** @type {Place} */
  offset = { x: 0, y: 0 };
  /** @type {Size} */
  #screen = { width: 1, height: 1 };
  /** @type {Size} */
  #image = { width: 1, height: 1 };
  #isFitted = true;

  /**
   * @param {number} edge pixels that stay free around a whole image
   * @param {number} bottom pixels that stay free below it
   */
  constructor(edge, bottom = edge) {
    this.edge = edge;
    this.bottom = bottom;
  }

  get screen() {
    return this.#screen;
  }

  /**
   * The image position of a place on the screen.
   * @param {Place} place
   * @returns {Place}
   */
  toImage({ x, y }) {
    return { x: (x - this.offset.x) / this.zoom, y: (y - this.offset.y) / this.zoom };
  }

  /**
   * @param {Place} place
   * @returns {Place}
   */
  toScreen({ x, y }) {
    return { x: x * this.zoom + this.offset.x, y: y * this.zoom + this.offset.y };
  }

  /** The image position in the middle of the screen. */
  get middle() {
    return this.toImage({ x: this.#screen.width / 2, y: this.#screen.height / 2 });
  }

  /** The box of the image that the screen shows; it may be larger than the image. */
  get seen() {
    const { width, height } = this.#screen;
    return { ...this.toImage({ x: 0, y: 0 }), width: width / this.zoom, height: height / this.zoom };
  }

  /**
   * Whether some of a box is on the screen.
   * @param {Place & Size} box
   */
  sees({ x, y, width, height }) {
    const { seen } = this;
    return x <= seen.x + seen.width && y <= seen.y + seen.height && x + width >= seen.x && y + height >= seen.y;
  }

  /** @param {Size} image */
  setImage(image) {
    this.#image = image;
    this.fit();
  }

  /** @param {Size} screen */
  setScreen(screen) {
    const { middle } = this;
    this.#screen = screen;
    if (this.#isFitted) this.fit();
    else this.centre(middle);
  }

  get #fittingZoom() {
    const { width, height } = this.#room;
    const share = Math.min(width / this.#image.width, height / this.#image.height);
    return Math.min(LARGEST_ZOOM, share);
  }

  /** Where a whole image has its place. */
  get #room() {
    const { width, height } = this.#screen;
    return { width: Math.max(1, width - 2 * this.edge), height: Math.max(1, height - this.edge - this.bottom) };
  }

  /** Show the whole image. */
  fit() {
    this.zoom = this.#fittingZoom;
    this.centre({ x: this.#image.width / 2, y: this.#image.height / 2 });
    this.offset = { x: this.offset.x, y: this.offset.y - (this.bottom - this.edge) / 2 };
    this.#isFitted = true;
  }

  /**
   * Zoom by a factor, and keep what is at a place of the screen.
   * @param {number} factor
   * @param {Place} at
   */
  zoomBy(factor, at = { x: this.#screen.width / 2, y: this.#screen.height / 2 }) {
    const fixed = this.toImage(at);
    const smallest = Math.min(1, this.#fittingZoom) / 2;
    this.zoom = Math.min(LARGEST_ZOOM, Math.max(smallest, this.zoom * factor));
    this.offset = { x: at.x - fixed.x * this.zoom, y: at.y - fixed.y * this.zoom };
    this.#keepInView();
  }

  /** One pixel of the image becomes one of the screen. */
  zoomToPixels() {
    this.zoomBy(1 / (this.zoom * (window.devicePixelRatio || 1)));
  }

  /**
   * @param {number} dx
   * @param {number} dy
   */
  pan(dx, dy) {
    this.offset = { x: this.offset.x + dx, y: this.offset.y + dy };
    this.#keepInView();
  }

  /**
   * Bring a box into view if it is outside, or too small to see.
   * @param {Place & Size} box
   */
  reveal(box) {
    const topLeft = this.toScreen(box);
    const bottomRight = this.toScreen({ x: box.x + box.width, y: box.y + box.height });
    const { width, height } = this.#screen;
    const isInside = topLeft.x >= 0 && topLeft.y >= 0 && bottomRight.x <= width && bottomRight.y <= height;
    const side = Math.max(box.width, box.height);
    const isTooSmall = side * this.zoom < SMALLEST_SEEN_PX;
    if (isInside && !isTooSmall) return;
    const room = Math.min(width, height);
    if (isTooSmall || side * this.zoom > room) {
      this.zoom = Math.min(LARGEST_REVEALED_ZOOM, Math.max(this.#fittingZoom, (0.3 * room) / side));
    }
    this.centreBox(box);
  }

  /** @param {Place & Size} box */
  centreBox({ x, y, width, height }) {
    this.centre({ x: x + width / 2, y: y + height / 2 });
    this.#keepInView();
  }

  /** @param {Place} place of the image */
  centre({ x, y }) {
    this.offset = { x: this.#screen.width / 2 - x * this.zoom, y: this.#screen.height / 2 - y * this.zoom };
  }

  #keepInView() {
    const width = this.#image.width * this.zoom;
    const height = this.#image.height * this.zoom;
    const x = Math.min(this.#screen.width - MARGIN_PX, Math.max(MARGIN_PX - width, this.offset.x));
    const y = Math.min(this.#screen.height - MARGIN_PX, Math.max(MARGIN_PX - height, this.offset.y));
    this.offset = { x, y };
    this.#isFitted = false;
  }
}
