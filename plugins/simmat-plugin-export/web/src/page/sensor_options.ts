/** The questions that the sensor's files do not answer, and what does not fit the model. */

import { byId, element } from "shared/dom.js";
import type { OpenedImage, SensorOption } from "../engine";
import type { Workspace } from "./workspace";

export function setUpSensorOptions(workspace: Workspace): void {
  const { options } = workspace.engine.info;
  byId("sensor-section").hidden = !options.length;
  const places = ["sensor-options", "warning-options", "start-options"].map((id) => byId(id));
  const fields = places.flatMap((place) => options.map((option) => addField(workspace, option, place)));
  let closedFor: OpenedImage | null = null;
  let warned: OpenedImage | null = null;
  byId("warnings-close").addEventListener("click", () => {
    closedFor = workspace.opened;
    workspace.changed();
  });

  workspace.onChange(() => {
    const { opened } = workspace;
    byId("warnings").hidden = !opened?.warnings.length || closedFor === opened;
    if (opened && opened !== warned) byId("warning-list").replaceChildren(...opened.warnings.map((text) => element("li", {}, text)));
    warned = opened;
    for (const { option, input } of fields) {
      if (document.activeElement !== input) input.value = workspace.options[option.name];
    }
    byId("start-options").hidden = !workspace.current?.error; // an answer may be why it failed
  });
}

function addField(workspace: Workspace, option: SensorOption, place: HTMLElement): { option: SensorOption; input: HTMLSelectElement | HTMLInputElement } {
  const input = option.choices.length ? element("select") : element("input", { type: "text" });
  for (const choice of option.choices) input.append(element("option", { value: choice }, choice || "not stated"));
  input.value = option.value;
  input.addEventListener("change", () => void workspace.setOption(option.name, input.value));
  place.append(element("label", { class: "field", title: option.help }, `${labelOf(option)} `, input));
  return { option, input };
}

/** "distance_m" becomes "Distance m", and "reflected_c" becomes "Reflected °C". */
function labelOf({ name }: SensorOption): string {
  const words = name.replace(/_c$/, " °C").replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}
