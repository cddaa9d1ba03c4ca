// Search among the texts of the map: the nearest to a query, lit up and listed.

import { isCancel } from "./api.js";
import { find, make, say } from "./dom.js";
import { embed } from "./embed.js";
import { t } from "./language.js";
import { dot } from "./scores.js";

const NEAREST = 10;

let running = null;

// `shown()` is what the map shows, `light(indices)` lights up points, `point(index)` shows one. What it returns clears.
export function startSearch({ shown, light, point }) {
  const notice = (sentence, error) => say(find("search-say"), sentence, error);
  const clear = () => {
    running?.abort();
    light([]);
    find("nearest").replaceChildren();
    notice(null);
  };
  find("search-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const now = shown();
    const query = find("search").value.trim();
    if (!now) return;
    running?.abort();
    const { signal } = (running = new AbortController());
    if (!query) return clear();
    try {
      const [{ dense }] = await embed([query], { pooling: now.pooling, priority: "interactive", signal, notice });
      const found = now.vectors
        .map((vector, index) => ({ index, score: dot(dense, vector.dense) }))
        .sort((a, b) => b.score - a.score)
        .slice(0, NEAREST);
      light(found.map(({ index }) => index));
      find("nearest").replaceChildren(...found.map(({ index, score }) => item(now.texts[index], now.places?.[index], score, () => point(index))));
      notice(t("search.found", { n: found.length, query }));
    } catch (error) {
      if (!isCancel(error)) notice(error.message, true);
    }
  });
  find("search-clear").addEventListener("click", () => {
    find("search").value = "";
    if (shown()) clear();
  });
  return clear;
}

function item(text, place, score, show) {
  const button = make("button", { pointerenter: show, focus: show }, text);
  return make("li", {}, make("span", { class: "value" }, score.toFixed(3)), " ", ...(place ? [make("small", { class: "hint" }, place), " "] : []), button);
}
