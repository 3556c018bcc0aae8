/** The list of images, shown as soon as there are two. */

import { byId, element, revealIn } from "shared/dom.js";
import { icon, setText } from "./dom";
import type { ImageEntry } from "./images";
import { withLeastScore } from "./labels";
import { count } from "./numbers";
import type { Workspace } from "./workspace";

interface Row {
  item: HTMLLIElement;
  button: HTMLButtonElement;
  state: HTMLElement;
}

export function setUpImageList(workspace: Workspace): void {
  const rows = new Map<ImageEntry, Row>();
  let listed: readonly ImageEntry[] = [];
  let revealed: ImageEntry | null = null;
  byId("find-everywhere").addEventListener("click", () => void workspace.findEverywhere());

  workspace.onChange(() => {
    const { images, current } = workspace;
    const wasHidden = byId("image-panel").hidden;
    byId("image-panel").hidden = images.length < 2;
    if (images !== listed) {
      listed = images;
      for (const entry of images) if (!rows.has(entry)) rows.set(entry, newRow(workspace, entry));
      byId("image-list").replaceChildren(...images.map((entry) => rows.get(entry)!.item));
    }
    let done = 0;
    for (const entry of images) {
      const shown = withLeastScore(entry.history.present.objects, workspace.leastScore);
      showRow(rows.get(entry)!, entry, shown.length, entry === current);
      if (entry.history.present.objects.length || entry.isSearched) done += 1;
    }
    setText(byId("image-count"), `${done} of ${images.length} done`);
    byId<HTMLButtonElement>("find-everywhere").disabled = workspace.task !== null || images.every((entry) => entry.isSearched || entry.error);
    if (current && (current !== revealed || wasHidden)) revealIn(byId("image-list"), rows.get(current)!.item);
    revealed = current;
  });
}

function newRow(workspace: Workspace, entry: ImageEntry): Row {
  const state = element("span", { class: "state" });
  const name = element("span", { class: "label" }, entry.name);
  const button = element("button", { title: entry.name, onclick: () => void workspace.open(entry) }, name, state);
  button.addEventListener("keydown", (event) => moveFocus(event, button));
  const remove = element("button", { class: "quiet-button", "aria-label": `Remove ${entry.name} from the list`, onclick: () => removeAfterQuestion(workspace, entry) }, icon("close"));
  return { item: element("li", {}, button, remove), button, state };
}

function removeAfterQuestion(workspace: Workspace, entry: ImageEntry): void {
  const { objects } = entry.history.present;
  const question = `Remove ${entry.name} from the list, with its ${count(objects.length, "object")}? The file stays where it is.`;
  if (!objects.length || confirm(question)) workspace.removeImage(entry);
}

function showRow({ item, button, state }: Row, entry: ImageEntry, objects: number, isCurrent: boolean): void {
  let text = "";
  if (objects || entry.isSearched) text = String(objects);
  if (entry.error) text = "failed";
  setText(state, text);
  const hint = entry.error || (text ? count(objects, "object") : "");
  if (state.title !== hint) state.title = hint;
  item.classList.toggle("failed", entry.error !== "");
  button.setAttribute("aria-current", String(isCurrent));
}

/** Up and down go through the list. */
function moveFocus(event: KeyboardEvent, button: HTMLElement): void {
  const sibling = { ArrowDown: button.closest("li")!.nextElementSibling, ArrowUp: button.closest("li")!.previousElementSibling }[event.key];
  if (!sibling) return;
  event.preventDefault();
  event.stopPropagation(); // these keys move the image elsewhere
  sibling.querySelector("button")?.focus();
}
