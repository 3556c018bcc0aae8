/** The model card, and the list of keys. */

import { byId, element } from "shared/dom.js";
import type { ModelInfo } from "../engine";
import { setText } from "./dom";
import { shownUnit } from "./numbers";
import { showPicture } from "./start_screen";

export function setUpDialogs(info: ModelInfo): void {
  setText(byId("card-title"), info.title);
  showPicture(byId("card-picture"), info.picture);
  byId("card-rows").append(...info.card.map(({ name, value }) => pair(name, value)));
  const channels = info.channels.map((channel) => {
    const { unit } = shownUnit(channel);
    return pair(channel.name, [channel.quantity.replaceAll("_", " "), unit && `in ${unit}`].filter(Boolean).join(" "));
  });
  byId("card-channels").append(...channels);
  const notices = (info.notices ?? []).map(({ name, text }) => element("details", {}, element("summary", {}, name), element("pre", {}, text)));
  if (notices.length) byId("card-notices").append(element("h3", {}, "Licences"), ...notices);
  byId("card-button").addEventListener("click", () => open("card"));
  byId("help-button").addEventListener("click", () => open("help"));
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", ({ target }) => {
      if (target === dialog) dialog.close(); // beside it
    });
  }
}

export function open(id: "card" | "help"): void {
  const dialog = byId<HTMLDialogElement>(id);
  dialog.showModal();
  dialog.scrollTop = 0;
}

function pair(name: string, value: string): HTMLTableRowElement {
  return element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, value));
}
