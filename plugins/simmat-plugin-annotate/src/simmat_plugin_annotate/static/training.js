/** The training that runs on the server, and its curve. */

import { get, post } from "./api.js";
import { byId, fitCanvas } from "./shared/dom.js";
import { ask } from "./show.js";

export class TrainingPanel {
  constructor(messages) {
    this.messages = messages;
    this.warned = new Set(); // each is said once
    this.state = "idle";
  }

  /** Ask for the settings of a training and start it, or stop the one that runs. */
  async toggle() {
    if (this.state === "running") {
      showStopping();
      this.show(await post("/api/train/stop", {}));
      return;
    }
    const plan = await get("/api/train");
    byId("steps").placeholder = String(plan.default_steps);
    showPlan(plan);
    for (const id of ["steps", "image-size", "recipe"]) byId(id).oninput = () => showPlan(plan);
    if ((await ask(byId("train-dialog"))) !== "train") return;
    const [steps, size] = ["steps", "image-size"].map((id) => Number(byId(id).value) || null);
    this.show(await post("/api/train", { steps, image_size: size, recipe: byId("recipe").value }));
  }

  /** Show a training; returns whether it has ended by now. */
  show(training) {
    const { state, step, steps, message, score, before, adopted, images, left_s, warnings, stopping } = training;
    drawCurve(training);
    const ended = this.state === "running" && state !== "running";
    for (const warning of warnings.filter((found) => !this.warned.has(found))) {
      this.warned.add(warning);
      this.messages.note(warning, true);
    }
    this.state = state;
    const running = state === "running";
    byId("train").textContent = running ? "Stop training" : "Train";
    byId("train").disabled = Boolean(stopping);
    const bar = byId("progress");
    bar.hidden = !running;
    if (running && steps) bar.value = step / steps;
    else bar.removeAttribute("value");
    const text = [];
    if (running) {
      text.push(step ? `Step ${step} of ${steps}` : `Starting: ${message}`, `${images} images`);
      if (left_s) text.push(`About ${Math.ceil(left_s / 60)} min left`);
      else if (step >= steps && /^step/.test(message)) text.push("Writing the trained model");
    } else if (state === "done") {
      const kept = "The new model is not better, so the previous one stays in use: label more images, or train for more steps";
      text.push(adopted ? "New model in use" : kept);
    } else if (state !== "idle") text.push(state === "failed" ? "Training failed" : "Training was stopped");
    if (score !== null) {
      const compared = before === null ? "" : `, before ${before.toFixed(3)}`;
      text.push(`${score.toFixed(3)}${compared} (mean IoU after one click, validation)`);
    }
    if (state === "failed" || (running && step && !/^step/.test(message))) text.push(message); // the rest is said above
    byId("training-text").textContent = text.join(". ");
    if (running && stopping) showStopping();
    if (ended && state === "failed") this.messages.bad(`Training failed: ${message}`);
    return ended;
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
    byId("size-hint").textContent = `The model in use takes images of ${size} px per side; a larger size is slower and shows more detail.`;
    byId("model").textContent = `Model: ${name}${tuned ? "" : " (not tuned yet)"}`;
  }
}

function showStopping() {
  byId("train").disabled = true;
  byId("training-text").textContent = "Stopping after the current step. Nothing of this training is kept";
}

/** Say in the dialog which images do what, and how long the training takes at the pace of the last one. */
function showPlan({ split = {}, predicted = 0, pace = null, default_steps: usual }) {
  const { train = 0, val = 0, test = 0 } = split;
  byId("split-hint").textContent = train
    ? `${train + val + test} labelled images: ${train} for training, ${val} for validation, ${test} for a test.`
    : "Too few images are labelled: label at least three.";
  if (predicted) {
    byId("split-hint").textContent += ` ${predicted} contain objects found by a model (◇): they are left out of validation and test.`;
  }
  if (train && !val) byId("split-hint").textContent += " None is left for validation: draw or confirm (V) at least three.";
  if (!pace) {
    byId("time-hint").textContent = "The remaining time is shown after the first steps.";
    return;
  }
  const steps = Number(byId("steps").value) || usual;
  const size = Number(byId("image-size").value) || pace.image_size;
  const minutes = (steps * pace.step_s * (size / pace.image_size) ** 2) / 60;
  byId("time-hint").textContent = `About ${Math.max(1, Math.ceil(minutes))} min, at the pace of the last training.`;
}

const EDGE = 4;
const [LOSS, SCORE, QUIET] = ["#e69f00", "#6cb8ee", "#b4b4b4"];

/**
 * Draw the curve, or hide it where there is nothing to draw yet.
 * @param losses,scores [step, value]; scores are 0..1
 */
function drawCurve({ losses, scores, steps }) {
  const canvas = byId("curve");
  canvas.hidden = losses.length < 2 && scores.length < 2;
  if (canvas.hidden) return;
  const { context, width, height } = fitCanvas(canvas);
  context.font = "11px sans-serif";
  const values = losses.map(([, value]) => value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [top, bottom] = [18, height - 16];
  const x = (step) => EDGE + (step / steps) * (width - 2 * EDGE);
  const y = (part) => bottom - part * (bottom - top);
  context.strokeStyle = "#4a4a4a";
  context.strokeRect(EDGE, top, width - 2 * EDGE, bottom - top);
  const line = (points, colour) => {
    context.beginPath();
    for (const [step, part] of points) context.lineTo(x(step), y(part));
    context.strokeStyle = colour;
    context.lineWidth = 1.5;
    context.stroke();
  };
  line(losses.map(([step, value]) => [step, (value - low) / (high - low || 1)]), LOSS);
  line(scores, SCORE);
  context.fillStyle = SCORE;
  for (const [step, part] of scores) context.fillRect(x(step) - 2.5, y(part) - 2.5, 5, 5);
  const last = (points) => points.at(-1)?.[1].toPrecision(3) ?? "–";
  context.fillText(`■ IoU ${last(scores)}`, EDGE, 12);
  context.fillStyle = LOSS;
  context.fillText(`— loss ${last(losses)}`, 100, 12);
  context.fillStyle = QUIET;
  context.fillText("0", EDGE, height - 4);
  const end = `${steps} steps`;
  context.fillText(end, width - EDGE - context.measureText(end).width, height - 4);
  canvas.setAttribute("aria-label", `Validation IoU ${last(scores)}, loss ${last(losses)} at step ` +
    `${losses.at(-1)?.[0] ?? 0} of ${steps}`);
}
