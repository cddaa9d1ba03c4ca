"use strict";

// ReDoc has no dark theme of its own. It draws once: a page whose colours should change loads again.
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.addEventListener("change", () => location.reload());

const INK = "#e4e8ea";
const RAISED = "#1d2225";
const DARK = {
  colors: {
    primary: { main: "#54bcc0" },
    text: { primary: INK, secondary: "#9aa5ab" },
    border: { dark: "#323a3e", light: "#323a3e" },
    success: { main: "#67c795" },
    error: { main: "#f0907f" },
    responses: {
      success: { color: "#67c795", backgroundColor: RAISED, tabTextColor: "#67c795" },
      error: { color: "#f0907f", backgroundColor: RAISED, tabTextColor: "#f0907f" },
    },
  },
  schema: { nestedBackground: RAISED, typeNameColor: "#9aa5ab", typeTitleColor: "#9aa5ab" },
  typography: { code: { color: "#e08a5c", backgroundColor: RAISED }, links: { color: "#54bcc0" } },
  sidebar: { backgroundColor: RAISED, textColor: INK, activeTextColor: "#54bcc0" },
  rightPanel: { backgroundColor: "#0e1113" },
};

document.documentElement.classList.toggle("dark-mode", dark.matches);
const root = document.getElementById("redoc");
Redoc.init(root.dataset.spec, { theme: dark.matches ? DARK : {} }, root);
