// What the page says, in the reader's language: every string is in one table for each language, fetched when it is used.

const TABLES = { en: () => import("./en.js"), zh: () => import("./zh.js") };
const KEPT = "language";
const listeners = [];
let current = localStorage.getItem(KEPT) ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
if (!(current in TABLES)) current = "en";
let table = {};

export const language = () => current;

// t("map.cluster", { n: 12 }) puts 12 where the string has {n}.
export function t(key, values = {}) {
  return table[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// Fills in elements that name their string: as text, as the accessible name, as the placeholder.
const FILLED = { "data-t": "textContent", "data-t-label": "ariaLabel", "data-t-placeholder": "placeholder" };

function translate() {
  for (const [name, property] of Object.entries(FILLED))
    for (const element of document.querySelectorAll(`[${name}]`)) element[property] = t(element.getAttribute(name));
}

// What was drawn by script is drawn anew in the other language.
export const onLanguage = (listener) => listeners.push(listener);

export async function setLanguage(name) {
  table = (await TABLES[name]()).default;
  current = name;
  localStorage.setItem(KEPT, name);
  document.documentElement.lang = name === "zh" ? "zh-CN" : "en";
  translate();
  for (const listener of listeners) listener();
}
