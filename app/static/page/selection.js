// The points of the map that were selected, as a table to read, copy and save.

import { csvLine } from "./csv.js";
import { find, make, save, say } from "./dom.js";
import { t } from "./language.js";

// `shown()` is what the map shows, with the points `selected`; `clear()` selects none.
export function selectionTable({ shown, clear }) {
  const records = () => {
    const { selected, texts, places, columns } = shown();
    const named = [...(places ? [{ name: t("select.place"), values: places }] : []), ...columns];
    const head = ["#", t("select.text"), ...named.map(({ name }) => name)];
    return [head, ...selected.map((index) => [index + 1, texts[index], ...named.map(({ values }) => values[index] ?? "")])];
  };
  find("select-copy").addEventListener("click", async () => {
    const flat = (field) => String(field).replace(/\s+/g, " ");
    try {
      await navigator.clipboard.writeText(records().map((record) => record.map(flat).join("\t")).join("\n"));
      say(find("select-say"), t("select.copied"));
    } catch {
      // No clipboard without HTTPS: the table is marked, ready for the keyboard.
      getSelection().selectAllChildren(find("select-rows"));
      say(find("select-say"), t("select.marked"));
    }
  });
  find("select-csv").addEventListener("click", () => save("selection.csv", new Blob(records().map(csvLine), { type: "text/csv" })));
  find("select-clear").addEventListener("click", clear);

  return {
    show() {
      const { selected } = shown();
      find("selected").hidden = !selected.length;
      find("select-title").textContent = t("select.title", { n: selected.length });
      say(find("select-say"), null);
      const [head, ...rows] = selected.length ? records() : [[]];
      const cells = (tag, record, attributes) => make("tr", {}, ...record.map((field) => make(tag, attributes, String(field))));
      find("select-rows").replaceChildren(
        make("thead", {}, cells("th", head, { scope: "col" })),
        make("tbody", {}, ...rows.map((record) => cells("td", record))),
      );
    },
  };
}
