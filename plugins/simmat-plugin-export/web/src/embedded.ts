/** The parts of the page that `simmat export` put into it: json, and gzip as base64 in elements that nothing runs. */

import { UserError } from "./engine";

const DAMAGED = "this page is damaged or was cut short; copy the whole file again, or export it again";

/** The json of an element; UserError if it is missing or damaged. */
export function embeddedJson(document: Document, id: string): any {
  try {
    return JSON.parse(embeddedText(document, id));
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(DAMAGED);
  }
}

/** The text of an element; UserError if it is missing. */
export function embeddedText(document: Document, id: string): string {
  const text = document.getElementById(id)?.textContent;
  if (!text) throw new UserError(DAMAGED);
  return text;
}

/** The bytes of gzip as base64; UserError if they are damaged. */
export async function unpacked(text: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    const packed = new Blob([fromBase64(text)]).stream();
    const whole = packed.pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(whole).arrayBuffer());
  } catch {
    throw new UserError(DAMAGED);
  }
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const decode = (Uint8Array as any).fromBase64;
  if (decode) return decode.call(Uint8Array, text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; index++) bytes[index] = binary.charCodeAt(index);
  return bytes;
}
