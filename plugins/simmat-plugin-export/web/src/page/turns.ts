/** One piece of work after the other: the engine answers one question at a time. */

export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Do some work after all that was asked before. */
  run<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined);
    return result;
  }
}
