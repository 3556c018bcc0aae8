/** The object that is being drawn: its clicks or box, the model's masks, strokes of the brush. Nothing of it is saved. */

import { post } from "./api.js";
import { maskOfRuns } from "./runs.js";
import { stroked } from "./shared/masks.js";

const LOW_IOU = 0.8; // a mask of a lower predicted IoU is probably wrong
const ENOUGH = 2; // clicks and boxes after which it is better drawn

/** Whether a model's mask is probably wrong though it had more than one click. */
export function staysLow({ answer, state: { points, box } }) {
  const prompts = points.length + (box ? 1 : 0);
  return answer !== null && prompts >= ENOUGH && answer.score < LOW_IOU;
}

export class Draft {
  /**
   * @param key the image's key
   * @param size the image's {width, height}
   * @param replaces id of the object that it replaces when accepted, or null for a new one
   * @param track id of the object of other frames that it is, or null
   * @param predicted whether the mask that it begins with is a model's, and nobody has drawn at it
   */
  constructor(key, size, {
    replaces = null, track = null, mask = null, point = null, objectClass = undefined, predicted = false,
  } = {}) {
    Object.assign(this, { key, size, replaces, track, objectClass });
    this.state = { points: point ? [[...point, 1]] : [], box: null, masks: [], index: 0, painted: mask, predicted };
    this.past = [];
    this.future = [];
    this.pending = Promise.resolve();
    this.asked = 0;
    this.waiting = false;
  }

  get mask() {
    return this.state.painted ?? this.state.masks[this.state.index]?.mask ?? null;
  }

  /** The model's answer that is shown, or null where the mask was painted. */
  get answer() {
    return this.state.painted ? null : (this.state.masks[this.state.index] ?? null);
  }

  #step(changes) {
    this.past.push(this.state);
    this.future = [];
    this.state = { ...this.state, ...changes };
  }

  /** Take back a step of this draft; returns whether there was one. */
  undo() {
    if (!this.past.length) return false;
    this.future.push(this.state);
    this.state = this.past.pop();
    this.asked += 1; // an answer under way is for another state
    this.waiting = false;
    const { points, box, masks, painted } = this.state;
    if ((points.length || box) && !masks.length && !painted) this.#ask().catch(() => {}); // undone before it came
    return true;
  }

  redo() {
    if (!this.future.length) return false;
    this.past.push(this.state);
    this.state = this.future.pop();
    return true;
  }

  get empty() {
    return !this.state.points.length && !this.state.box && !this.mask;
  }

  /** Add a click at a place of the image, label 1 or 0. */
  addPoint({ x, y }, label) {
    // The server counts from the centre of the first pixel to that of the last.
    const column = Math.min(Math.max(x - 0.5, 0), this.size.width - 1);
    const row = Math.min(Math.max(y - 0.5, 0), this.size.height - 1);
    this.#step({ points: [...this.state.points, [column, row, label]], painted: null, predicted: false });
    return this.#ask();
  }

  setBox(box) {
    this.#step({ box, painted: null, predicted: false });
    return this.#ask();
  }

  #ask() {
    this.asked += 1;
    const { asked } = this;
    const { points, box } = this.state;
    this.waiting = true;
    this.pending = post(`/api/images/${this.key}/predict`, { points, box }).then(
      (answer) => {
        if (asked !== this.asked) return null;
        this.waiting = false;
        const masks = answer.masks
          .filter(({ mask }) => mask)
          .map((found) => ({ ...found, mask: maskOfRuns(found.mask) }));
        this.state = { ...this.state, masks, index: 0, warning: answer.warning };
        return answer;
      },
      (error) => {
        if (asked !== this.asked) return null;
        this.waiting = false;
        throw error;
      },
    );
    return this.pending;
  }

  /** Show the model's next mask, or with -1 the one before. */
  alternative(by) {
    const { masks, index } = this.state;
    if (masks.length) this.#step({ index: (index + by + masks.length) % masks.length, painted: null });
  }

  /** Begin a stroke: what follows until the next is undone as one. */
  beginStroke() {
    this.#step({ painted: this.mask, predicted: false });
  }

  /**
   * Replace the mask by one that a tool has made.
   * @param predicted whether that is still what a model found, such as without its specks
   */
  paint(mask, predicted = false) {
    this.#step({ painted: mask, predicted });
    this.asked += 1; // an answer under way would cover it
    this.waiting = false;
  }

  /** Begin without clicks and mask; undo brings them back. */
  clear() {
    this.#step({ points: [], box: null, masks: [], index: 0, painted: null, predicted: false });
    this.asked += 1; // an answer under way is of the clicks
    this.waiting = false;
  }

  stroke(part) {
    const painted = stroked(this.state.painted, part, this.size);
    this.state = { ...this.state, painted };
  }
}
