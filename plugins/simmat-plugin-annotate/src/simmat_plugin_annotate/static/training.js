/** Messages, and the training that runs on the server. */

import { post } from "./api.js";
import { byId, element } from "./show.js";

const NOTE_MS = 7000;
const MOST = 4; // messages at once

export class Messages {
  constructor(place) {
    this.place = place;
    this.shown = new Map();
  }

  /** Say something; it goes by itself unless it is to `stay`. One message of a `kind` at a time. */
  note(text, stay = false, kind = text) {
    const message = this.#add(text, "message", kind);
    if (!stay) setTimeout(() => this.shown.get(kind) === message && this.clear(kind), NOTE_MS);
  }

  /** Say what failed; it stays until it is closed. One message of a `kind` at a time. */
  bad(text, kind = text) {
    this.#add(text, "message bad", kind);
  }

  clear(kind) {
    this.shown.get(kind)?.remove();
    this.shown.delete(kind);
  }

  #add(text, className, kind) {
    this.clear(kind);
    const message = element("div", { class: className }, element("span", {}, text));
    message.append(element("button", { "aria-label": "Close", onclick: () => this.clear(kind) }, "×"));
    this.place.append(message);
    this.shown.set(kind, message);
    const old = [...this.shown.keys()].filter((shown) => shown !== "gone"); // which stays until the server is back
    for (const shown of old.slice(0, -MOST)) this.clear(shown);
    return message;
  }
}

export class TrainingPanel {
  constructor(messages) {
    this.messages = messages;
    this.warned = new Set(); // each is said once
    this.state = "idle";
  }

  /** Start a training, or stop the one that runs. */
  async toggle() {
    const stop = this.state === "running";
    if (!stop && !byId("steps").reportValidity()) return;
    this.show(await (stop ? post("/api/train/stop", {}) : post("/api/train", { steps: Number(byId("steps").value) })));
    if (stop && this.state === "running") this.messages.note("The training stops after its present step.");
  }

  show({ state, step, steps, message, score, before, metric, adopted, images, left_s, warnings }) {
    const ended = this.state === "running" && state !== "running";
    for (const warning of warnings.filter((found) => !this.warned.has(found))) {
      this.warned.add(warning);
      this.messages.note(warning, true);
    }
    this.state = state;
    const running = state === "running";
    byId("train").textContent = running ? "Stop training" : "Train";
    byId("steps").disabled = running;
    byId("steps").value ||= String(steps);
    const bar = byId("progress");
    bar.hidden = !running;
    if (running && steps) bar.value = step / steps;
    else bar.removeAttribute("value");
    const text = [];
    if (running) {
      text.push(step ? `Step ${step} of ${steps}` : "Starting", `${images} images`);
      if (left_s) text.push(`About ${Math.ceil(left_s / 60)} min left`);
      else if (step && /^step/.test(message)) text.push("Writing what was trained");
    } else if (state === "done") {
      const kept = "The new model is not better, so the one before stays: label more images or take more steps";
      text.push(adopted ? "New model in use" : kept);
    } else if (state !== "idle") text.push(state === "failed" ? "Training failed" : "Training was stopped");
    if (score !== null) {
      const compared = before === null ? "" : `, before ${before.toFixed(3)}`;
      text.push(`${score.toFixed(3)}${compared} (${metric})`);
    }
    if (state === "failed" || (running && !/^(starting|step)/.test(message))) text.push(message); // the rest is said above
    byId("training-text").textContent = text.join(". ");
    if (ended && state === "failed") this.messages.bad(`Training failed: ${message}`);
  }

  showModel({ name, kind }) {
    byId("model").textContent = `Model: ${name}${kind === "untuned" ? " (not tuned yet)" : ""}`;
  }
}
