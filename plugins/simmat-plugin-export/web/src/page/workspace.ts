/** What is open, what is marked in it, and what the user can do with it. Panels show it after each change. */

import { contains, type Place, type Stroke, trimmed } from "shared/masks.js";
import { Cancelled, type Backend, type Engine, type FoundMask, type OpenedImage, type Progress, type Prompt } from "../engine";
import { type Display, displayOf, firstDisplay } from "./display";
import { compacted, entriesOf, type ImageEntry } from "./images";
import { type Draft, type Labels, type LabelledObject, nextNumber, withChosenClass, withLeastScore } from "./labels";
import { overlap, painted, promptOf } from "./masks";
import { complain, messages } from "./messages";
import { count, fewOf } from "./numbers";
import { isSavedWork, savedImages } from "./saving/reopen";
import { Turns } from "./turns";

export type Tool = "add" | "remove" | "brush" | "eraser" | "move";

/** Work that takes a while. */
export interface Task {
  title: string;
  /** 0 to 1, NaN while it is not known. */
  share: number;
  secondsLeft?: number;
  canCancel: boolean;
}

/** A found object is left out if it is one that is marked already. */
const SAME_OBJECT_IOU = 0.5;
/** Two masks that a person draws may overlap, but these are most likely one object. */
const TWIN_IOU = 0.9;
const MEASURE_AFTER_MS = 250;
const EMPTY: Labels = { objects: [], draft: null };

export class Workspace {
  images: readonly ImageEntry[] = [];
  /** The image that is chosen; `opened` is null while it is being read. */
  current: ImageEntry | null = null;
  opened: OpenedImage | null = null;
  backend: Backend | null = null;
  /** Why the model does not run here. */
  startError = "";
  /** Name -> answer to the sensor's questions. */
  options: Record<string, string> = {};
  tool: Tool = "add";
  brushRadius = 6;
  /** Number of the selected object. */
  selected: number | null = null;
  display: Display | null = null;
  /** Objects that were found with a lower score are neither shown nor saved. */
  leastScore = 0;
  opacity = 0.35;
  hasOutlines = true;
  isHidden = false;
  showsClassMap = false;
  task: Task | null = null;
  /** Whether the measurements of the current image are awaited. */
  isMeasuring = false;

  #turns = new Turns();
  #listeners: (() => void)[] = [];
  #isChangeAnnounced = false;
  #opening = 0;
  #predicting: Promise<void> | null = null;
  #measureTimer = 0;
  #isStroking = false;

  constructor(readonly engine: Engine) {
    for (const option of engine.info.options) this.options[option.name] = option.value;
  }

  // What panels ask

  get labels(): Labels {
    return this.current?.history.present ?? EMPTY;
  }

  get selectedObject(): LabelledObject | null {
    return this.labels.objects.find((object) => object.number === this.selected) ?? null;
  }

  /** The objects that are shown and saved. */
  get shownObjects(): readonly LabelledObject[] {
    return withLeastScore(this.labels.objects, this.leastScore);
  }

  get hasImage(): boolean {
    return this.opened !== null;
  }

  /** Call after each change, at most once a frame. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  changed(): void {
    if (this.#isChangeAnnounced) return;
    this.#isChangeAnnounced = true;
    requestAnimationFrame(() => {
      this.#isChangeAnnounced = false;
      for (const listener of this.#listeners) listener();
    });
  }

  /** Set what only concerns the view. */
  set(change: Partial<Pick<Workspace, "tool" | "brushRadius" | "selected" | "display" | "opacity" | "hasOutlines" | "isHidden" | "showsClassMap">>): void {
    Object.assign(this, change);
    this.changed();
  }

  setLeastScore(leastScore: number): void {
    this.leastScore = leastScore;
    if (!this.shownObjects.some(({ number }) => number === this.selected)) this.selected = null;
    this.changed();
  }

  // The model and its images

  async start(): Promise<void> {
    const task = this.#begin("Loading the model", false);
    try {
      this.backend = await this.#turns.run(() => this.engine.start());
    } catch (error) {
      this.startError = messageOf(error);
    }
    this.#finish(task);
  }

  /** Add images, and open the first of them if none is open. */
  async addFiles(files: readonly File[]): Promise<void> {
    const { info } = this.engine;
    messages.clearAll();
    const saved = files.filter(isSavedWork);
    const { entries, foreign } = entriesOf(files.filter((file) => !isSavedWork(file)), this.images, info);
    if (foreign.length) {
      const names = fewOf(foreign.map((file) => file.name), 3);
      complain(`${count(foreign.length, "file was", "files were")} left out: ${names}. This model reads ${info.accepts.join(", ")}.`);
    }
    this.images = [...this.images, ...entries];
    this.changed();
    for (const file of saved) await this.#takeSaved(file);
    if (saved.length) await this.openSaved();
    else if (!entries.length) return;
    else if (entries.length === 1 || !this.current || this.current.error) await this.open(entries[0]);
  }

  /** Give the objects of a file that was saved before to the images of their names. */
  async #takeSaved(file: File): Promise<void> {
    try {
      const found = await savedImages(file, this.engine.info);
      const strangers: string[] = [];
      for (const saved of found) {
        const entry = this.images.find((one) => one.name === saved.fileName);
        if (!entry) strangers.push(saved.fileName);
        else entry.saved = saved;
      }
      if (strangers.length) {
        complain(`${file.name} holds objects of ${fewOf(strangers, 3)}, which ${strangers.length === 1 ? "is" : "are"} not in the list. Drop the images and the file together.`);
      }
    } catch (error) {
      complain(error);
    }
  }

  /** Open each image whose saved objects wait, so that they are checked and measured; then the first of them. */
  async openSaved(): Promise<void> {
    const waiting = this.images.filter((entry) => entry.saved);
    const first = waiting[0] ?? this.current ?? this.images[0];
    for (const entry of waiting) {
      if (entry === this.current && this.opened) this.#restore(entry);
      else await this.open(entry);
      if (this.current !== entry) return; // the user went elsewhere
    }
    if (first) await this.open(first);
  }

  /** Add the saved objects to an opened image, but those that it has. */
  #restore(entry: ImageEntry): void {
    const { saved, size } = entry;
    entry.saved = null;
    if (!saved || !size) return;
    if (saved.size.width !== size.width || saved.size.height !== size.height) {
      complain(
        `${entry.name} has ${size.width} × ${size.height} pixels, but ${saved.origin} holds objects of an image of ` +
          `${saved.size.width} × ${saved.size.height}. They were left out.`,
      );
      return;
    }
    const { objects } = entry.history.present;
    const all = [...objects];
    for (const object of saved.objects) {
      if (objects.some((one) => overlap(one.mask, object.mask) > SAME_OBJECT_IOU)) continue;
      const isTaken = all.some(({ number }) => number === object.number);
      all.push(isTaken ? { ...object, number: nextNumber(all) } : object);
    }
    entry.isSearched = true;
    if (all.length > objects.length) entry.history.push({ objects: all });
    this.#labelsChanged();
  }

  /** Open an image; what was marked in the former one stays. */
  async open(entry: ImageEntry): Promise<void> {
    if (this.current === entry && this.opened) return;
    this.#opening += 1;
    const turn = this.#opening;
    if (this.task?.canCancel) this.engine.cancel();
    await this.#measureBeforeLeaving();
    if (turn !== this.#opening) return; // another was chosen meanwhile
    this.current = entry;
    this.opened = null;
    this.selected = null;
    const task = this.#begin(`Opening ${entry.name}`, false);
    try {
      await this.#turns.run(() => this.#read(entry, turn, task));
    } catch (error) {
      if (!(error instanceof Cancelled)) entry.error = messageOf(error);
    }
    this.#finish(task);
    if (turn === this.#opening) this.#ask();
  }

  async #read(entry: ImageEntry, turn: number, task: Task): Promise<void> {
    if (turn !== this.#opening) return;
    const opened = await this.engine.open(entry.files, this.options, this.#progressOf(task));
    if (turn !== this.#opening) return;
    entry.error = "";
    entry.size = { width: opened.width, height: opened.height };
    this.opened = opened;
    this.display = this.#displayFor(opened);
    this.#restore(entry);
    this.#measureSoon();
  }

  /** What was chosen stays, with limits that suit the new image. */
  #displayFor(opened: OpenedImage): Display {
    const { channels } = this.engine.info;
    if (!this.display) return firstDisplay(opened, channels);
    return displayOf(opened, channels, this.display.channels, this.display.map);
  }

  /** Read the current image again with another answer to a question of the sensor. */
  async setOption(name: string, value: string): Promise<void> {
    this.options = { ...this.options, [name]: value };
    const { current } = this;
    if (!current) return;
    current.measured = null;
    this.opened = null;
    await this.open(current);
  }

  turnPage(by: number): void {
    if (!this.current) return;
    const next = this.images[this.images.indexOf(this.current) + by];
    if (next) void this.open(next);
  }

  removeImage(entry: ImageEntry): void {
    const index = this.images.indexOf(entry);
    this.images = this.images.filter((one) => one !== entry);
    if (entry === this.current) {
      this.current = null;
      this.opened = null;
      const neighbour = this.images[Math.min(index, this.images.length - 1)];
      if (neighbour) void this.open(neighbour);
    }
    this.changed();
  }

  // Prompts

  /** Mark a place that belongs to the object, or does not. */
  click({ x, y }: Place, onObject: boolean): void {
    const draft = this.#draftToChange();
    const before = promptBefore(draft);
    if (!onObject && isEmpty(before)) {
      messages.note("First click the object, or draw a box around it. Then take away what is too much.");
      return;
    }
    const point = { x: x - 0.5, y: y - 0.5, onObject }; // the engine counts from the centre of the first pixel
    this.#changePrompt(draft, { ...before, points: [...before.points, point] });
  }

  /** Draw a box, which begins anew. */
  box(one: Place, other: Place): void {
    if (!this.opened) return;
    const { width, height } = this.opened;
    const left = Math.max(0, Math.min(one.x, other.x));
    const top = Math.max(0, Math.min(one.y, other.y));
    const right = Math.min(width, Math.max(one.x, other.x));
    const bottom = Math.min(height, Math.max(one.y, other.y));
    if (right - left < 1 || bottom - top < 1) return;
    this.#changePrompt(this.#draftToChange(), { points: [], box: [left, top, right, bottom] });
  }

  /** The draft, or one that corrects the selected object, or an empty one. */
  #draftToChange(): Draft {
    const { draft } = this.labels;
    if (draft) return draft;
    const object = this.selectedObject;
    if (!object) return { prompt: { points: [] }, mask: null, isWaiting: false, replaces: null };
    const prompt = object.prompt ?? promptOf(object.mask);
    return { prompt, mask: object.mask, isWaiting: false, replaces: object.number, classId: object.mask.classId ?? undefined };
  }

  #changePrompt(draft: Draft, prompt: Prompt): void {
    if (!this.current || !this.opened) return;
    this.current.history.push({ draft: { ...draft, prompt, isWaiting: true } });
    this.changed();
    this.#ask();
  }

  /** Ask for masks until the draft has its own. */
  #ask(): void {
    this.#predicting ??= this.#predict().finally(() => {
      this.#predicting = null;
      this.changed();
    });
  }

  async #predict(): Promise<void> {
    for (;;) {
      const { current, labels } = this;
      const { draft } = labels;
      if (!current || !this.opened || !draft?.isWaiting) return;
      let mask: FoundMask | null = draft.mask;
      try {
        mask = await this.#turns.run(async () => (this.current === current && this.opened ? this.engine.predict(draft.prompt) : draft.mask));
      } catch (error) {
        if (!(error instanceof Cancelled)) complain(error);
      }
      if (current.history.present.draft === draft) current.history.amend({ draft: { ...draft, mask, isWaiting: false } });
      this.changed();
    }
  }

  // Brush

  beginStroke(): void {
    this.#isStroking = false; // its first move makes a step of the history
  }

  stroke(stroke: Stroke): void {
    if (!this.current || !this.opened) return;
    const draft = this.#draftToChange();
    const mask = painted(draft.mask, stroke, this.opened);
    if (!mask && !draft.mask) return;
    const change = { draft: { ...draft, prompt: { points: [] }, mask, isWaiting: false } };
    if (this.#isStroking) this.current.history.amend(change);
    else this.current.history.push(change);
    this.#isStroking = true;
    this.changed();
  }

  // Objects

  /** Make the draft an object. */
  async accept(): Promise<void> {
    await this.#predicting;
    const { current } = this;
    const { draft, objects } = this.labels;
    if (!current || !draft) return;
    if (!draft.mask?.area) {
      messages.note(draft.replaces === null ? "Nothing is marked yet." : "Nothing of the object is left. Delete removes it.");
      return;
    }
    const mask = trimmed(draft.mask)!;
    const accepted: LabelledObject = {
      number: draft.replaces ?? nextNumber(objects),
      mask: withChosenClass(mask, draft.classId),
      prompt: isEmpty(draft.prompt) ? null : draft.prompt,
    };
    const others = objects.filter((object) => object.number !== accepted.number);
    const all = [...others, accepted].sort((a, b) => a.number - b.number);
    const twin = others.find((object) => overlap(object.mask, mask) > TWIN_IOU);
    if (twin) messages.note(`This is almost the mask of object ${twin.number}; Ctrl+Z takes it back.`);
    this.selected = null;
    current.history.push({ objects: all, draft: null });
    this.#labelsChanged();
  }

  /** Drop the draft, or deselect. */
  drop(): void {
    if (this.labels.draft) this.current!.history.push({ draft: null });
    else this.selected = null;
    this.changed();
  }

  deleteSelected(): void {
    const { current, selected } = this;
    const { draft, objects } = this.labels;
    const number = draft ? draft.replaces : selected;
    if (draft && number === null) {
      this.drop();
      return;
    }
    if (!current || number === null) return;
    current.history.push({ objects: objects.filter((object) => object.number !== number), draft: null });
    this.selected = null;
    this.#labelsChanged();
  }

  /** Select the smallest object at a place. */
  selectAt(place: Place): void {
    const under = this.shownObjects.filter((object) => contains(object.mask, place));
    under.sort((a, b) => a.mask.area - b.mask.area);
    this.set({ selected: under[0]?.number ?? null });
  }

  /** Set the class of the draft or of the selected object; null for none. */
  setClass(classId: number | null): void {
    const { current } = this;
    const { draft, objects } = this.labels;
    const object = this.selectedObject;
    if (draft) current!.history.push({ draft: { ...draft, classId } });
    else if (object) {
      const changed = { ...object, mask: withChosenClass(object.mask, classId) };
      current!.history.push({ objects: objects.map((one) => (one === object ? changed : one)) });
    } else return;
    this.#labelsChanged();
  }

  undo(): void {
    this.#step(() => this.current?.history.undo());
  }

  redo(): void {
    this.#step(() => this.current?.history.redo());
  }

  #step(move: () => void): void {
    move();
    if (!this.selectedObject) this.selected = null;
    this.#labelsChanged();
    this.#ask(); // what was not answered before
  }

  #labelsChanged(): void {
    this.changed();
    this.#measureSoon();
  }

  // Work on the whole image

  /** Find every object; those that are marked already stay. */
  async findEverything(): Promise<void> {
    const { current } = this;
    if (!current || !this.opened || this.task) return;
    const found = await this.#longWork("Finding every object", (progress) => this.engine.everything(progress));
    if (!found) return;
    const { objects } = current.history.present;
    const added: LabelledObject[] = [];
    let number = nextNumber(objects);
    for (const mask of found) {
      if (objects.some((object) => overlap(object.mask, mask) > SAME_OBJECT_IOU)) continue;
      added.push({ number, mask, prompt: mask.prompt ?? null, isFound: true });
      number += 1;
    }
    current.isSearched = true;
    if (added.length) current.history.push({ objects: [...objects, ...added] });
    if (current !== this.current) return;
    if (!found.length) messages.note("The model finds no object in this image.");
    else if (!added.length) messages.note("The model finds no further object.");
    this.#labelsChanged();
  }

  /** Find every object of each image that was not searched yet. */
  async findEverywhere(): Promise<void> {
    if (this.task) return;
    const waiting = this.images.filter((entry) => !entry.isSearched && !entry.error);
    for (const entry of waiting) {
      await this.open(entry);
      if (this.current !== entry) return; // the user went elsewhere
      if (entry.error) continue;
      await this.findEverything();
      if (!entry.isSearched) return; // cancelled
    }
    messages.note(summaryOf(waiting));
  }

  async toggleClassMap(): Promise<void> {
    const { current } = this;
    if (!current || !this.opened) return;
    this.set({ showsClassMap: !this.showsClassMap });
    await this.loadClassMap();
  }

  /** Ask for the class map if it is to be seen and not known yet. */
  async loadClassMap(): Promise<void> {
    const { current } = this;
    if (!current || !this.opened || !this.showsClassMap || current.classMap || this.task) return;
    const map = await this.#longWork("Classifying every pixel", (progress) => this.engine.classMap(progress));
    if (map) current.classMap = compacted(map);
    else this.showsClassMap = false;
    this.changed();
  }

  cancel(): void {
    if (this.task?.canCancel) this.engine.cancel();
  }

  /** Returns undefined if it was cancelled or failed. */
  async #longWork<Result>(title: string, work: (progress: Progress) => Promise<Result>): Promise<Result | undefined> {
    const task = this.#begin(title, true);
    try {
      return await this.#turns.run(() => work(this.#progressOf(task)));
    } catch (error) {
      if (!(error instanceof Cancelled)) complain(error);
      return undefined;
    } finally {
      this.#finish(task);
    }
  }

  #begin(title: string, canCancel: boolean): Task {
    const task = { title, share: NaN, canCancel };
    this.task = task;
    this.changed();
    return task;
  }

  #finish(task: Task): void {
    if (this.task === task) this.task = null;
    this.changed();
  }

  #progressOf(task: Task): Progress {
    return (share, secondsLeft) => {
      Object.assign(task, { share, secondsLeft });
      this.changed();
    };
  }

  // Measurements

  /** Whether the numbers are those of the objects as they are now. */
  get isMeasured(): boolean {
    return isMeasured(this.current);
  }

  #measureSoon(): void {
    clearTimeout(this.#measureTimer);
    this.#measureTimer = window.setTimeout(() => void this.measure(), MEASURE_AFTER_MS);
  }

  /** Measure the objects of the current image, unless they are. */
  async measure(): Promise<void> {
    const { current } = this;
    if (!current || !this.opened || this.isMeasured) return;
    this.isMeasuring = true;
    this.changed();
    try {
      await this.#turns.run(() => this.#measureNow(current));
    } catch (error) {
      complain(error);
    }
    this.isMeasuring = false;
    this.changed();
  }

  async #measureNow(entry: ImageEntry): Promise<void> {
    const { objects } = entry.history.present;
    if (entry !== this.current || !this.opened || !objects.length) return;
    const masks = objects.map((object) => object.mask);
    const { columns, rows } = await this.engine.measure(masks);
    entry.measured = { columns, rows: new Map(masks.map((mask, index) => [mask, rows[index]])) };
  }

  /** The engine forgets an image when it opens another. */
  async #measureBeforeLeaving(): Promise<void> {
    await this.#predicting;
    await this.measure();
  }
}

/** Whether each object of an image has its numbers, and no other has. */
export function isMeasured(entry: ImageEntry | null): boolean {
  if (!entry) return true;
  const { objects } = entry.history.present;
  const rows = entry.measured?.rows;
  if (!rows) return !objects.length;
  return objects.length === rows.size && objects.every((object) => rows.has(object.mask));
}

/** "12 objects in 3 images; 1 image could not be opened." */
function summaryOf(searched: readonly ImageEntry[]): string {
  let objects = 0;
  let failed = 0;
  for (const entry of searched) {
    objects += entry.history.present.objects.length;
    if (entry.error) failed += 1;
  }
  const found = `${count(objects, "object")} in ${count(searched.length - failed, "image")}`;
  return failed ? `${found}; ${count(failed, "image")} could not be opened.` : `${found}.`;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function isEmpty({ points, box }: Prompt): boolean {
  return !points.length && !box;
}

/** What a click adds to; a painted mask has no prompt, and its box and a pixel of it stand for it. */
function promptBefore({ prompt, mask }: Draft): Prompt {
  return mask && isEmpty(prompt) ? promptOf(mask) : prompt;
}
