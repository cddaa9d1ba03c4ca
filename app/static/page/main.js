// Starts the page: its language, the key, the status strip, and of the views the one that is looked at.

import { startHonesty } from "./demo.js";
import { find, say } from "./dom.js";
import { startFind } from "./find.js";
import { setUpKey } from "./key.js";
import { language, onLanguage, setLanguage, t } from "./language.js";
import { startStatus } from "./status.js";

// What starts a view; of those that are not first it is fetched once they are opened.
const VIEWS = {
  search: async () => startFind(),
  similarity: async () => (await import("./similarity.js")).startSimilarity(),
  map: async () => {
    const { startMap, openMap } = await import("./map.js");
    startMap();
    openMap();
  },
};
const NAMES = Object.keys(VIEWS);
const started = {};

const panel = (name) => find(find(`tab-${name}`).getAttribute("aria-controls"));

async function open(view) {
  for (const name of NAMES) {
    const tab = find(`tab-${name}`);
    tab.setAttribute("aria-selected", String(name === view));
    tab.tabIndex = name === view ? 0 : -1;
    panel(name).hidden = name !== view;
  }
  history.replaceState(null, "", `#${view}`);
  say(find("view-say"), null);
  try {
    await (started[view] ??= VIEWS[view]());
  } catch (error) {
    started[view] = null; // the server was away: opening it again tries again
    say(find("view-say"), error instanceof TypeError ? t("error.network") : error.message, true);
  }
}

const asked = () => (NAMES.includes(location.hash.slice(1)) ? location.hash.slice(1) : NAMES[0]);

NAMES.forEach((view, at) => {
  find(`tab-${view}`).addEventListener("click", () => open(view));
  find(`tab-${view}`).addEventListener("keydown", ({ key }) => {
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: -1 }[key];
    if (to === undefined) return;
    const other = NAMES.at(to % NAMES.length);
    open(other);
    find(`tab-${other}`).focus();
  });
});
// A file that misses a view would replace the page.
for (const type of ["dragover", "drop"])
  addEventListener(type, (event) => event.dataTransfer.types.includes("Files") && event.preventDefault());
addEventListener("hashchange", () => open(asked()));

const switchLanguage = find("language");
const other = () => (language() === "zh" ? "en" : "zh");
onLanguage(() => {
  switchLanguage.textContent = { en: "English", zh: "中文" }[other()];
  switchLanguage.lang = other();
});
switchLanguage.addEventListener("click", () => setLanguage(other()));

await setLanguage(language());
setUpKey();
startHonesty();
startStatus();
open(asked());
document.documentElement.classList.add("ready");
