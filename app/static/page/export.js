// Export what is shown: the request as code, and files.

import { make, save, say } from "./dom.js";
import { vectorsAsCsv, vectorsAsJson } from "./files.js";
import { key } from "./key.js";
import { onLanguage, t } from "./language.js";
import { inline, snippet } from "./snippets.js";
import { served } from "./status.js";

const KINDS = { curl: "curl", requests: "Python requests", ollama: "Python ollama", openai: "Python openai" };

const vectorFiles = () => [
  { label: t("export.json"), act: (now) => save("vectors.json", vectorsAsJson(now)) },
  { label: t("export.csv"), act: (now) => save("vectors.csv", vectorsAsCsv(now)) },
  { label: t("export.png"), act: ({ picture }) => picture() },
];

// `shown()` gives {body} and what `files` need, or nothing yet; files() are [{label, act}], by default those of vectors.
export function exportBox(root, shown, files = vectorFiles) {
  let kind = "curl";
  const said = make("p", { class: "hint", role: "status" });
  const name = `code-${root.id}`;
  const code = make("pre", { tabindex: "0", role: "region" }, make("code"));
  const content = make("div", { class: "export" });
  const details = make("details", {}, make("summary"), content);
  root.replaceChildren(details);
  details.addEventListener("toggle", () => details.open && fill());

  async function write() {
    const now = shown();
    if (!now) return;
    const { model, pooling } = await served();
    const origin = new URL(".", document.baseURI).href.replace(/\/$/, "");
    code.firstChild.textContent = snippet(kind, { origin, body: now.body, keyed: key() !== null, model, pooling });
    say(said, inline(now.body) ? null : t("export.file"));
  }

  const button = (label, act) =>
    make("button", { click: async () => shown() && act({ ...shown(), model: (await served()).model }) }, label);

  function fill() {
    details.firstChild.textContent = t("export.title");
    code.setAttribute("aria-label", t("export.code"));
    const radios = Object.entries(KINDS).map(([one, label]) =>
      make(
        "label",
        {},
        make("input", {
          type: "radio",
          name,
          value: one,
          checked: one === kind,
          change: () => {
            kind = one;
            write();
          },
        }),
        make("span", {}, label),
      ),
    );
    const copy = make("button", { click: copied }, t("export.copy"));
    const request = button("request.json", ({ body }) => save("request.json", JSON.stringify(body), "application/json"));
    content.replaceChildren(
      make("fieldset", { class: "choice" }, make("legend", {}, t("export.as")), ...radios),
      code,
      make("div", { class: "buttons" }, copy, request, ...files().map(({ label, act }) => button(label, act))),
      said,
    );
    write();
  }

  async function copied() {
    try {
      await navigator.clipboard.writeText(code.textContent);
      say(said, t("export.copied"));
    } catch {
      // No clipboard without HTTPS: the code is marked, ready for the keyboard.
      getSelection().selectAllChildren(code);
      say(said, t("export.marked"));
    }
  }

  fill();
  onLanguage(fill);
  return { refresh: () => details.open && write() };
}
