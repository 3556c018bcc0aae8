/** Which part of the image is on the screen: screen = image * zoom + offset, in CSS pixels. */

import type { Place, Size } from "./masks";

const LARGEST_ZOOM = 64;
const MARGIN_PX = 48; // of the image stay in view
const EDGE_PX = 12; // around a whole image
const BOTTOM_PX = 64; // below a whole image, for the bar with what is drawn

export class View {
  zoom = 1;
  offset: Place = { x: 0, y: 0 };
  #screen: Size = { width: 1, height: 1 };
  #image: Size = { width: 1, height: 1 };
  #isFitted = true;

  get screen(): Size {
    return this.#screen;
  }

  toImage({ x, y }: Place): Place {
    return { x: (x - this.offset.x) / this.zoom, y: (y - this.offset.y) / this.zoom };
  }

  toScreen({ x, y }: Place): Place {
    return { x: x * this.zoom + this.offset.x, y: y * this.zoom + this.offset.y };
  }

  /** The image position in the middle of the screen. */
  get middle(): Place {
    return this.toImage({ x: this.#screen.width / 2, y: this.#screen.height / 2 });
  }

  setImage(image: Size): void {
    this.#image = image;
    this.fit();
  }

  setScreen(screen: Size): void {
    const { middle } = this;
    this.#screen = screen;
    if (this.#isFitted) this.fit();
    else this.#centre(middle);
  }

  get #fittingZoom(): number {
    const { width, height } = this.#room;
    const share = Math.min(width / this.#image.width, height / this.#image.height);
    return Math.min(LARGEST_ZOOM, share);
  }

  /** Where a whole image has its place. */
  get #room(): Size {
    const { width, height } = this.#screen;
    return { width: Math.max(1, width - 2 * EDGE_PX), height: Math.max(1, height - EDGE_PX - BOTTOM_PX) };
  }

  /** Show the whole image. */
  fit(): void {
    this.zoom = this.#fittingZoom;
    this.#centre({ x: this.#image.width / 2, y: this.#image.height / 2 });
    this.offset = { x: this.offset.x, y: this.offset.y - (BOTTOM_PX - EDGE_PX) / 2 };
    this.#isFitted = true;
  }

  /** Zoom by a factor, and keep what is at a place of the screen. */
  zoomBy(factor: number, at: Place = { x: this.#screen.width / 2, y: this.#screen.height / 2 }): void {
    const fixed = this.toImage(at);
    const smallest = Math.min(1, this.#fittingZoom) / 2;
    this.zoom = Math.min(LARGEST_ZOOM, Math.max(smallest, this.zoom * factor));
    this.offset = { x: at.x - fixed.x * this.zoom, y: at.y - fixed.y * this.zoom };
    this.#keepInView();
  }

  pan(dx: number, dy: number): void {
    this.offset = { x: this.offset.x + dx, y: this.offset.y + dy };
    this.#keepInView();
  }

  /** Bring a box into view if it is outside, or too small to see. */
  reveal(box: Place & Size): void {
    const topLeft = this.toScreen(box);
    const bottomRight = this.toScreen({ x: box.x + box.width, y: box.y + box.height });
    const isInside = topLeft.x >= 0 && topLeft.y >= 0 && bottomRight.x <= this.#screen.width && bottomRight.y <= this.#screen.height;
    const side = Math.max(box.width, box.height);
    if (isInside && side * this.zoom >= 12) return;
    const room = Math.min(this.#screen.width, this.#screen.height);
    if (side * this.zoom > room || side * this.zoom < 12) {
      this.zoom = Math.min(8, Math.max(this.#fittingZoom, (0.3 * room) / side));
    }
    this.#centre({ x: box.x + box.width / 2, y: box.y + box.height / 2 });
    this.#keepInView();
  }

  #centre({ x, y }: Place): void {
    this.offset = { x: this.#screen.width / 2 - x * this.zoom, y: this.#screen.height / 2 - y * this.zoom };
  }

  #keepInView(): void {
    const width = this.#image.width * this.zoom;
    const height = this.#image.height * this.zoom;
    const x = Math.min(this.#screen.width - MARGIN_PX, Math.max(MARGIN_PX - width, this.offset.x));
    const y = Math.min(this.#screen.height - MARGIN_PX, Math.max(MARGIN_PX - height, this.offset.y));
    this.offset = { x, y };
    this.#isFitted = false;
  }
}
