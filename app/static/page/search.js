// Search among the texts of the map: the nearest to a query, lit up and listed.

import { isCancel } from "./api.js";
import { find, make, say } from "./dom.js";
import { embed } from "./embed.js";
import { t } from "./language.js";
import { dot } from "./scores.js";

const NEAREST = 10;

let running = null;

// `shown()` is what the map shows, `light(indices)` lights up points, `point(index)` shows one.
export function startSearch({ shown, light, point }) {
  find("search-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const now = shown();
    const query = find("search").value.trim();
    if (!now) return;
    running?.abort();
    const { signal } = (running = new AbortController());
    const notice = (sentence) => say(find("search-say"), sentence);
    if (!query) return clear(light);
    try {
      const [{ dense }] = await embed([query], { pooling: now.pooling, priority: "interactive", signal, notice });
      const found = now.vectors
        .map((vector, index) => ({ index, score: dot(dense, vector.dense) }))
        .sort((a, b) => b.score - a.score)
        .slice(0, NEAREST);
      light(found.map(({ index }) => index));
      find("nearest").replaceChildren(...found.map(({ index, score }) => item(now.texts[index], score, () => point(index))));
      notice(t("search.found", { n: found.length, query }));
    } catch (error) {
      if (!isCancel(error)) say(find("search-say"), error.message, true);
    }
  });
  find("search-clear").addEventListener("click", () => {
    running?.abort();
    find("search").value = "";
    if (shown()) clear(light);
  });
}

function clear(light) {
  light([]);
  find("nearest").replaceChildren();
  say(find("search-say"), null);
}

function item(text, score, show) {
  const button = make("button", { type: "button", pointerenter: show, focus: show }, text);
  return make("li", {}, make("span", { class: "value" }, score.toFixed(3)), " ", button);
}
