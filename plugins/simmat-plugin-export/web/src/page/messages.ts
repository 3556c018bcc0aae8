/** The messages of the page. */

import { byId } from "shared/dom.js";
import { Messages } from "shared/messages.js";
import { icon } from "./dom";

export const messages = new Messages(byId("messages"), icon);

export function complain(error: unknown): void {
  messages.bad(error instanceof Error ? error.message : String(error));
}
