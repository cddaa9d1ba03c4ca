// Starts the page: its language, the key, the status strip, the two views.

import { find } from "./dom.js";
import { setUpKey } from "./key.js";
import { language, onLanguage, setLanguage } from "./language.js";
import { openMap, startMap } from "./map.js";
import { startSimilarity } from "./similarity.js";
import { startStatus } from "./status.js";

const VIEWS = ["similarity", "map"];

function open(view) {
  for (const name of VIEWS) {
    const tab = find(`tab-${name}`);
    tab.setAttribute("aria-selected", String(name === view));
    tab.tabIndex = name === view ? 0 : -1;
    find(name).hidden = name !== view;
  }
  history.replaceState(null, "", `#${view}`);
  if (view === "map") openMap();
}

const asked = () => (VIEWS.includes(location.hash.slice(1)) ? location.hash.slice(1) : VIEWS[0]);

for (const view of VIEWS) {
  find(`tab-${view}`).addEventListener("click", () => open(view));
  find(`tab-${view}`).addEventListener("keydown", ({ key }) => {
    if (!["ArrowLeft", "ArrowRight", "Home", "End"].includes(key)) return;
    const other = { Home: VIEWS[0], End: VIEWS.at(-1) }[key] ?? VIEWS[1 - VIEWS.indexOf(view)];
    open(other);
    find(`tab-${other}`).focus();
  });
}
addEventListener("hashchange", () => open(asked()));

const switchLanguage = find("language");
const other = () => (language() === "zh" ? "en" : "zh");
onLanguage(() => {
  switchLanguage.textContent = { en: "English", zh: "中文" }[other()];
  switchLanguage.lang = other();
});
switchLanguage.addEventListener("click", () => setLanguage(other()));

setLanguage(language());
setUpKey();
startStatus();
startSimilarity();
startMap();
open(asked());
document.documentElement.classList.add("ready");
