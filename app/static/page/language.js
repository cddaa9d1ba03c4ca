// What the page says, in the reader's language: every string is in one table for each language.

import en from "./en.js";
import zh from "./zh.js";

const TABLES = { en, zh };
const KEPT = "language";
const listeners = [];
let current = localStorage.getItem(KEPT) ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
if (!(current in TABLES)) current = "en";

export const language = () => current;

// t("map.cluster", { n: 12 }) puts 12 where the string has {n}.
export function t(key, values = {}) {
  return TABLES[current][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// Fills in elements that name their string: as text, as the accessible name, as the placeholder.
export function translate(root = document) {
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of root.querySelectorAll("[data-t-label]"))
    element.setAttribute("aria-label", t(element.dataset.tLabel));
  for (const element of root.querySelectorAll("[data-t-placeholder]"))
    element.placeholder = t(element.dataset.tPlaceholder);
}

// What was drawn by script is drawn anew in the other language.
export const onLanguage = (listener) => listeners.push(listener);

export function setLanguage(name) {
  current = name;
  localStorage.setItem(KEPT, name);
  document.documentElement.lang = name === "zh" ? "zh-CN" : "en";
  translate();
  for (const listener of listeners) listener();
}
