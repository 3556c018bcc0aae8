/** Add, rename and remove classes. */

import { post } from "./api.js";
import { app, classes, show } from "./app.js";
import { attempt } from "./attempt.js";
import { stage } from "./parts.js";
import { byId } from "./shared/dom.js";

let adding = Promise.resolve();
byId("new-class").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = byId("class-name");
  const name = input.value.trim();
  const { choices } = app;
  if (!name) {
    stage.canvas.focus({ preventScroll: true });
    return;
  }
  input.value = ""; // at once, and the focus stays: what is typed next is the name of the next class
  input.placeholder = "Next class, or Enter to end";
  input.focus();
  setClasses((known) => [...known, { id: null, name, colour: null }]).then((added) => {
    if (!added && !input.value) input.value = name;
    else if (added && app.choices === choices) app.activeClass = classes().at(-1).id;
    show();
  });
});

/** Send the list of classes as `change` makes it; one change after the other, as each sends the whole list. */
function setClasses(change) {
  adding = adding.then(() => attempt(async () => {
    const known = classes().map(({ id, name, colour }) => ({ id, name, colour }));
    app.session.classes = (await post("/api/classes", { classes: change(known) })).classes;
  }));
  return adding;
}

/** Give a class another name, or remove it with the name null. */
export function rename(id, name) {
  setClasses((known) => known.flatMap((item) => (item.id !== id ? [item] : name === null ? [] : [{ ...item, name }])));
}
