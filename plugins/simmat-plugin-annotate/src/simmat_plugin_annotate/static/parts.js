/** The parts of the page; `main.js` makes them. */

export let stage = null;
export let panel = null;
export let wipe = null;
export let lists = null;
export let table = null;
export let training = null;

export function setParts(made) {
  ({ stage, panel, wipe, lists, table, training } = made);
}
