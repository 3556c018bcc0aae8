/** Requests to the server, and its events. */

import { app } from "./app.js";

/** What the server refused, or that it did not answer (`code` "gone"). */
class ApiError extends Error {
  constructor(code, message, problems = [], state = null) {
    super([message, ...problems.filter((problem) => problem !== message)].join("\n"));
    Object.assign(this, { code, state });
  }
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", cache: "no-cache", ...options });
  } catch (cause) {
    if (cause.name === "AbortError") throw cause;
    throw new ApiError("gone", "The server does not answer.");
  }
  if (response.ok) return response;
  let body = {};
  try {
    body = await response.json();
  } catch {
    /* not ours: the status says it */
  }
  const { code = "internal", message = `The server answered ${response.status}.`, problems = [] } = body.error ?? {};
  throw new ApiError(code, message, problems, body.state ?? null);
}

export async function get(path, signal) {
  return (await send(path, { signal })).json();
}

export async function getText(path) {
  return (await send(path)).text();
}

/** Another start of the server than the one that the page knows, perhaps for another folder, changes no labels for it. */
export async function post(path, body) {
  const headers = { "Content-Type": "application/json", "X-Session": app.session.session };
  return (await send(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

/**
 * Channels of a tile; the browser keeps it under `digest`, that of the image's document.
 * @returns {Promise<{w, h, planes: {offset, scale, values: Uint16Array}[]}>} value 0: no measurement
 */
export async function getTile(key, digest, level, column, row, channels, signal) {
  const path = `/api/images/${key}/tiles/${level}/${column}/${row}?v=${digest}&channels=${channels.join()}`;
  const response = await send(path, { signal, cache: "default" });
  const [count, h, w] = response.headers.get("X-Tile").split(",").map(Number);
  const buffer = await response.arrayBuffer();
  const header = new DataView(buffer);
  const planes = Array.from({ length: count }, (_, i) => ({
    offset: header.getFloat32(8 * i, true),
    scale: header.getFloat32(8 * i + 4, true),
    values: new Uint16Array(buffer, 8 * count + 2 * i * h * w, h * w),
  }));
  return { w, h, planes };
}

/**
 * Call `listener(kind, data)` for each event of the server, and "gone" where the server does not answer.
 *
 * A browser opens six connections to a host, over all of its tabs: one tab holds the stream and tells the others.
 */
export function listen(listener) {
  const channel = new BroadcastChannel("simmat-annotate-events");
  channel.onmessage = ({ data: [kind, data] }) => listener(kind, data);
  const tell = (kind, data) => {
    channel.postMessage([kind, data]);
    listener(kind, data);
  };
  const open = () => {
    const stream = new EventSource("/api/events");
    for (const kind of ["hello", "image", "training", "model", "classes", "follow", "check"]) {
      stream.addEventListener(kind, (event) => tell(kind, JSON.parse(event.data)));
    }
    stream.onerror = () => {
      tell("gone", null);
      if (stream.readyState === EventSource.CLOSED) setTimeout(open, 2000); // refused: it does not try again by itself
    };
  };
  navigator.locks.request("simmat-annotate-events", () => {
    open();
    return new Promise(() => {}); // until this tab closes
  });
}
