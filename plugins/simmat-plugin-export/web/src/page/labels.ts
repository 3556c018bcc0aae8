/** What is marked in an image, as values that are never changed, so that undo is to look at an older one. */

import type { FoundMask, Prompt } from "../engine";

/** An object that was accepted. Its number is its value in the saved masks. */
export interface LabelledObject {
  readonly number: number;
  readonly mask: FoundMask;
  /** What it was drawn with; null if it was painted. */
  readonly prompt: Prompt | null;
  /** Whether it was found without a click, and nobody corrected it since. */
  readonly isFound?: boolean;
}

/** An object that is being drawn. */
export interface Draft {
  readonly prompt: Prompt;
  /** The mask of the prompt, or of the one before while the model works. */
  readonly mask: FoundMask | null;
  readonly isWaiting: boolean;
  /** Number of the object that is being corrected. */
  readonly replaces: number | null;
  /** The class that the user chose; null for none, undefined for that of the model. */
  readonly classId?: number | null;
}

export interface Labels {
  readonly objects: readonly LabelledObject[];
  readonly draft: Draft | null;
}

/** The objects without those that were found with a lower score; what a person made stays. */
export function withLeastScore(objects: readonly LabelledObject[], leastScore: number): readonly LabelledObject[] {
  return objects.filter(({ mask, isFound }) => !isFound || mask.score >= leastScore);
}

const MOST_STEPS = 300;

/** The labels of an image, and those before and after them. */
export class History {
  #past: Labels[] = [];
  #future: Labels[] = [];
  #present: Labels = { objects: [], draft: null };

  get present(): Labels {
    return this.#present;
  }

  get canUndo(): boolean {
    return this.#past.length > 0;
  }

  get canRedo(): boolean {
    return this.#future.length > 0;
  }

  /** Go on to other labels. */
  push(change: Partial<Labels>): void {
    this.#past.push(this.#present);
    this.#past = this.#past.slice(-MOST_STEPS);
    this.#future = [];
    this.#present = { ...this.#present, ...change };
  }

  /** Change the present labels without a step of its own: the model's answer belongs to the click before it. */
  amend(change: Partial<Labels>): void {
    this.#present = { ...this.#present, ...change };
  }

  undo(): void {
    const before = this.#past.pop();
    if (!before) return;
    this.#future.push(this.#present);
    this.#present = before;
  }

  redo(): void {
    const after = this.#future.pop();
    if (!after) return;
    this.#past.push(this.#present);
    this.#present = after;
  }
}

export function nextNumber(objects: readonly LabelledObject[]): number {
  let largest = 0;
  for (const { number } of objects) largest = Math.max(largest, number);
  return largest + 1;
}

/** The mask of a draft with the class that the user chose. */
export function withChosenClass(mask: FoundMask, classId: number | null | undefined): FoundMask {
  if (classId === undefined) return mask;
  const { classId: _of, classProbability: _by, ...rest } = mask;
  return classId === null ? rest : { ...rest, classId };
}
