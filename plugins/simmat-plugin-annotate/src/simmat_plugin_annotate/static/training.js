/** The training that runs on the server. */

import { get, post } from "./api.js";
import { drawCurve } from "./curve.js";
import { ask, byId } from "./show.js";

export class TrainingPanel {
  constructor(messages) {
    this.messages = messages;
    this.warned = new Set(); // each is said once
    this.state = "idle";
  }

  /** Ask for the settings of a training and start it, or stop the one that runs. */
  async toggle() {
    if (this.state === "running") {
      this.show(await post("/api/train/stop", {}));
      if (this.state === "running") this.messages.note("The training stops after its present step.");
      return;
    }
    byId("steps").placeholder = String((await get("/api/train")).default_steps);
    if ((await ask(byId("train-dialog"))) !== "train") return;
    const [steps, size] = ["steps", "image-size"].map((id) => Number(byId(id).value) || null);
    this.show(await post("/api/train", { steps, image_size: size, recipe: byId("recipe").value }));
  }

  show(training) {
    const { state, step, steps, message, score, before, adopted, images, left_s, warnings } = training;
    drawCurve(training);
    const ended = this.state === "running" && state !== "running";
    for (const warning of warnings.filter((found) => !this.warned.has(found))) {
      this.warned.add(warning);
      this.messages.note(warning, true);
    }
    this.state = state;
    const running = state === "running";
    byId("train").textContent = running ? "Stop training" : "Train";
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
      text.push(`${score.toFixed(3)}${compared} (mean IoU after one click, validation)`);
    }
    if (state === "failed" || (running && !/^(starting|step)/.test(message))) text.push(message); // the rest is said above
    byId("training-text").textContent = text.join(". ");
    if (ended && state === "failed") this.messages.bad(`Training failed: ${message}`);
  }

  showModel({ name, path, image_size: size }) {
    const recipe = byId("recipe");
    const tuned = path !== null;
    const setSize = () => {
      byId("image-size").disabled = recipe.value === "continue"; // its size stays
      if (recipe.value === "continue") byId("image-size").value = String(size);
    };
    recipe.querySelector("[value=continue]").disabled = !tuned;
    recipe.value = tuned ? "continue" : "default";
    recipe.onchange = setSize;
    byId("image-size").value = String(size);
    setSize();
    byId("size-hint").textContent = `The model in use takes images of ${size} px a side; more is slower and shows more detail.`;
    byId("model").textContent = `Model: ${name}${tuned ? "" : " (not tuned yet)"}`;
  }
}
