// Requests to the server that the page came from, and to no other.

/** What the server says is wrong: one line, its code, and after how many seconds to try again. */
export class ServerError extends Error {
  constructor(message, { status = 0, code = "", retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

const TOKEN = "ecg-vlm-token";

/** Take the token out of the address (`#token=...`), where it would end up in bookmarks. */
export function takeTokenFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  setToken(token);
  history.replaceState(null, "", location.pathname);
}

export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export async function getJson(path) {
  return (await send(path)).json();
}

export async function postJson(path, body) {
  return (await send(path, { body })).json();
}

/** A file that the server makes. */
export async function postForBlob(path, body, accept) {
  return (await send(path, { body, accept })).blob();
}

/** The events of a streamed answer: `{name, data}`, one after the other. */
export async function* postForEvents(path, body, signal) {
  const response = await send(path, { body, signal, accept: "text/event-stream" });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value.replaceAll("\r", "");
    const blocks = buffer.split("\n\n");
    buffer = blocks.pop();
    for (const block of blocks) {
      const event = parseEvent(block);
      if (event) yield event;
    }
  }
}

function parseEvent(block) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  return data.length ? { name, data: JSON.parse(data.join("\n")) } : null; // a comment keeps the connection open
}

async function send(path, { body, signal, accept = "application/json" } = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { Accept: accept };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  const options = { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal };
  const response = await fetch(path, options).catch((error) => {
    throw error.name === "AbortError" ? error : new ServerError("", { code: "unreachable" });
  });
  if (!response.ok) throw await errorOf(response);
  return response;
}

async function errorOf(response) {
  const { error = {} } = await response.json().catch(() => ({}));
  return new ServerError(error.message ?? `${response.status} ${response.statusText}`, {
    status: response.status,
    code: error.code ?? "",
    retryAfter: Number(response.headers.get("Retry-After")) || 0,
  });
}
