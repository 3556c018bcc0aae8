/** The worker, in which everything is computed: it answers the calls of `worker_engine.ts`. */

import { Cancelled, UserError } from "../engine";
import { Answer, Call, Cancel } from "../messages";
import { Step } from "./everything";
import { Session } from "./session";

type Method = (argument: any, step: Step) => Promise<any>;

const session = new Session();
let running = 0;
let isCancelled = false;

/** Let messages of the page arrive, and stop if it asks for that. */
async function pause(): Promise<void> {
  await new Promise<void>((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
  if (isCancelled) throw new Cancelled("the work was stopped");
}

async function answer({ id, method, argument }: Call): Promise<void> {
  let reply: Answer;
  const step = async (share: number) => {
    postMessage({ id, share } satisfies Answer);
    await pause();
  };
  try {
    isCancelled = false;
    running = id;
    reply = { id, result: await (session[method] as Method).call(session, argument, step) };
  } catch (error) {
    reply = { id, error: messageOf(error), kind: kindOf(error) };
  }
  postMessage(reply, transferable("result" in reply ? reply.result : null));
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function kindOf(error: unknown): "user" | "cancelled" | "fault" {
  if (error instanceof Cancelled) return "cancelled";
  return error instanceof UserError ? "user" : "fault";
}

/** The large arrays of a result, which are handed over and not copied. */
function transferable(result: any): Transferable[] {
  const buffers = new Set<ArrayBuffer>();
  const add = (value: any) => {
    if (ArrayBuffer.isView(value) && value.byteLength === value.buffer.byteLength) {
      if (value.buffer instanceof ArrayBuffer) buffers.add(value.buffer);
    }
  };
  for (const value of Object.values(result ?? {})) {
    add(value);
    if (Array.isArray(value)) value.forEach(add);
  }
  return [...buffers];
}

onmessage = (event: MessageEvent<Call | Cancel>) => {
  if ("cancel" in event.data) isCancelled = running > 0;
  else void answer(event.data);
};

