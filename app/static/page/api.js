// Requests to the server: with the key, cancellable, waiting where it is busy, refusals as sentences.

import { askForKey, key } from "./key.js";
import { t } from "./language.js";

const TRIES = 4;
const LONGEST_WAIT = 30; // seconds

class Refusal extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

// The answer to a GET, or to a POST of `body`. `signal` cancels it at any time, while it waits too;
// `notice` is given sentences about what it waits for, and null when that is over.
export async function ask(path, { body, signal, notice = () => {} } = {}) {
  for (let attempt = 1; ; attempt++) {
    const used = key();
    const response = await send(path, body, used, signal);
    if (response.ok) return response;
    if (response.status === 401) {
      attempt = 0;
      await orCancel(askForKey(used), signal);
      continue;
    }
    const refusal = new Refusal(response.status, await sentence(response));
    if (response.status !== 503 || attempt === TRIES) throw refusal;
    const seconds = Math.min(LONGEST_WAIT, Number(response.headers.get("Retry-After")) || 2);
    notice(t("error.busy", { seconds, attempt, most: TRIES - 1 }));
    await orCancel(new Promise((resolve) => setTimeout(resolve, 1000 * seconds)), signal);
    notice(null);
  }
}

export const isCancel = (error) => error.name === "AbortError";

async function send(path, body, used, signal) {
  const headers = used ? { Authorization: `Bearer ${used}` } : {};
  const options = { headers, signal, cache: "no-store" };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  try {
    return await fetch(path, options);
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw new Refusal(0, t("error.network"));
  }
}

// What the server says is wrong, after what the page knows of this status.
async function sentence(response) {
  let said = "";
  try {
    said = (await response.json()).error;
  } catch {
    // A proxy's error page, perhaps: the status has to do.
  }
  const known = { 413: "error.large", 503: "error.full", 504: "error.late" }[response.status];
  return [known && t(known), said || t("error.status", { status: response.status })].filter(Boolean).join(" ");
}

// Waits for `promise`, which goes on for others, until `signal` aborts.
export const orCancel = (promise, signal) =>
  Promise.race([
    promise,
    new Promise((_, reject) => {
      if (signal?.aborted) reject(signal.reason);
      signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
    }),
  ]);
