/** What part of the image is on the screen: screen = image * zoom + offset, in CSS pixels. */

const MAX_ZOOM = 64; // screen pixels for a pixel of the image

export class View {
  constructor() {
    Object.assign(this, { zoom: 1, x: 0, y: 0, width: 1, height: 1, image: [1, 1] });
  }

  /** Image pixel [x, y] of a place on the screen. */
  toImage(x, y) {
    return [(x - this.x) / this.zoom, (y - this.y) / this.zoom];
  }

  toScreen(x, y) {
    return [x * this.zoom + this.x, y * this.zoom + this.y];
  }

  get fitting() {
    return Math.min(this.width / this.image[0], this.height / this.image[1]) * 0.98;
  }

  fit() {
    this.zoom = Math.min(MAX_ZOOM, this.fitting);
    this.centre(this.image[0] / 2, this.image[1] / 2);
  }

  centre(x, y) {
    this.x = this.width / 2 - x * this.zoom;
    this.y = this.height / 2 - y * this.zoom;
  }

  /** Zoom by a factor and keep the image under the place on the screen. */
  zoomAt(factor, x = this.width / 2, y = this.height / 2) {
    const [ix, iy] = this.toImage(x, y);
    this.zoom = Math.min(MAX_ZOOM, Math.max(Math.min(1, this.fitting) / 2, this.zoom * factor));
    this.x = x - ix * this.zoom;
    this.y = y - iy * this.zoom;
    this.#keep();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.#keep();
  }

  /** Show a box {x, y, w, h} where it is outside, or too small to see. */
  show({ x, y, w, h }) {
    const side = Math.max(w, h) * this.zoom;
    const [left, top] = this.toScreen(x, y);
    const [right, bottom] = this.toScreen(x + w, y + h);
    if (left >= 0 && top >= 0 && right <= this.width && bottom <= this.height && side >= 24) return;
    const room = Math.min(this.width, this.height);
    if (side > room * 0.9 || side < 24) {
      this.zoom = Math.min(8, Math.max(this.fitting, (room * 0.3) / Math.max(w, h)));
    }
    this.centre(x + w / 2, y + h / 2);
  }

  /** Keep some of the image on the screen. */
  #keep() {
    const [w, h] = [this.image[0] * this.zoom, this.image[1] * this.zoom];
    const edge = 60;
    this.x = Math.min(this.width - edge, Math.max(edge - w, this.x));
    this.y = Math.min(this.height - edge, Math.max(edge - h, this.y));
  }
}
