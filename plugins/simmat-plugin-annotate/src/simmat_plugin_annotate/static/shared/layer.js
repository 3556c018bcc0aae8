/** A picture that is drawn again only if something of it has changed: thousands of masks take a while. */
export class Layer {
  #canvas = document.createElement("canvas");
  /** @type {readonly unknown[]} */
  #of = [];

  /**
   * Draw on the whole of a canvas.
   * @param {CanvasRenderingContext2D} context of that canvas
   * @param {readonly unknown[]} of what the picture depends on
   * @param {(context: CanvasRenderingContext2D) => void} paint draws it; its context is in CSS pixels
   */
  draw(context, of, paint) {
    const { width, height } = context.canvas;
    const now = [width, height, ...of];
    if (now.length !== this.#of.length || now.some((value, index) => value !== this.#of[index])) {
      this.#of = now;
      this.#canvas.width = width; // which clears it
      this.#canvas.height = height;
      const layer = /** @type {CanvasRenderingContext2D} */ (this.#canvas.getContext("2d"));
      layer.setTransform(context.getTransform());
      paint(layer);
    }
    context.save();
    context.resetTransform();
    context.drawImage(this.#canvas, 0, 0);
    context.restore();
  }
}
