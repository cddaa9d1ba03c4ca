// Runs a job of worker.js; cancelling stops it in the middle.

import { t } from "./language.js";

export function run(job, input, { signal, progress = () => {} } = {}) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    const stop = (settle, value) => {
      worker.terminate();
      settle(value);
    };
    signal?.addEventListener("abort", () => stop(reject, signal.reason), { once: true });
    worker.onerror = (event) => stop(reject, new Error(t("error.compute", { said: event.message ?? "" })));
    worker.onmessage = ({ data }) => ("result" in data ? stop(resolve, data.result) : progress(data.done, data.of));
    worker.postMessage({ job, input });
  });
}
