/** The objects of an image, as they are on the server's disk. */

import { get, post } from "./api.js";
import { maskOfRuns } from "./runs.js";
import { contains } from "./shared/masks.js";

let states = 0; // that the objects of any image have had

export class Labels {
  /** @param document the server's document of an image */
  constructor(document) {
    this.key = document.key;
    this.work = Promise.resolve();
    this.#take(document);
  }

  #take(document) {
    this.objects = new Map();
    this.tracks = new Map(document.tracks); // id -> class of the objects of the sequence
    this.savedAt = null;
    this.#change({ ...document, changed: document.objects, removed: [] });
  }

  #change({ version, changed, removed, undo, redo, done, lost }) {
    Object.assign(this, { version, undo, redo, done, lost, state: ++states });
    for (const id of removed) this.objects.delete(id);
    for (const { mask, ...object } of changed) this.objects.set(object.id, { ...object, mask: maskOfRuns(mask) });
  }

  /** One request after another, each with the version that the one before it left. */
  #queue(request) {
    const work = this.work.then(request);
    this.work = work.catch(() => {});
    return work;
  }

  #post(action, body) {
    return this.#queue(async () => {
      try {
        const change = await post(`/api/images/${this.key}/${action}`, { version: this.version, ...body });
        this.#change(change);
        this.savedAt = new Date();
        return change;
      } catch (error) {
        if (error.code === "stale" && error.state) this.#take(error.state);
        throw error;
      }
    });
  }

  /** One step that can be undone; on disk when it returns. */
  edit(...edits) {
    return this.#post("edits", { edits });
  }

  step(action) {
    return this.#post(action, {});
  }

  /** @param empty whether the user says that nothing is in the image */
  setDone(done, empty = false) {
    return this.#post("done", { done, empty });
  }

  /** Read the image again where the server has another version; returns whether it had. */
  refresh(version) {
    return this.#queue(async () => {
      if (version !== undefined && version <= this.version) return false;
      const document = await get(`/api/images/${this.key}`);
      const changed = document.version !== this.version;
      this.#take(document);
      return changed;
    });
  }

  /** The object at a place of the image, the smallest of several. */
  at(place) {
    let found = null;
    for (const object of this.objects.values()) {
      if (contains(object.mask, place) && (!found || object.area < found.area)) found = object;
    }
    return found;
  }
}
