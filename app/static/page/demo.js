// Says what is served, and what its scores mean: the title, the banner of the demo model, a sentence beside scores.

import { find, say } from "./dom.js";
import { onLanguage, t } from "./language.js";
import { onModel } from "./status.js";

let what = null;

export function startHonesty() {
  onModel((served) => {
    what = served;
    draw();
  });
  onLanguage(draw);
}

function draw() {
  if (!what) return;
  const { model, demo, width, unrelated } = what;
  find("title").textContent = document.title = t(demo ? "title.demo" : "title", { model });
  say(find("demo"), demo ? t("demo.banner", { model, width }) : null);
  say(find("demo-prefixes"), demo ? t("demo.prefixes") : null);
  const range = unrelated && t("scores.unrelated", { low: unrelated.p5.toFixed(2), high: unrelated.p95.toFixed(2) });
  for (const element of document.querySelectorAll("[data-scores]"))
    say(element, [t("scores.compare"), range].filter(Boolean).join(t("scores.space")));
}
