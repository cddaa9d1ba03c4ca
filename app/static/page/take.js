// Take away what is shown: the request as code, the vectors as files, the picture.

import { make, save, say } from "./dom.js";
import { vectorsAsCsv, vectorsAsJson } from "./files.js";
import { key } from "./key.js";
import { onLanguage, t } from "./language.js";
import { inline, snippet } from "./snippets.js";
import { served } from "./status.js";

const KINDS = { curl: "curl", requests: "Python requests", ollama: "Python ollama", openai: "Python openai" };

// `shown()` gives {texts, vectors, pooling, body, picture}, or nothing yet; made anew whenever it is opened.
export function takeAway(root, shown) {
  let kind = "curl";
  const said = make("p", { class: "hint", role: "status" });
  const name = `code-${root.id}`;
  const code = make("pre", { tabindex: "0", role: "region" }, make("code"));
  const content = make("div", { class: "take" });
  const details = make("details", {}, make("summary"), content);
  root.replaceChildren(details);
  details.addEventListener("toggle", () => details.open && fill());

  async function write() {
    const now = shown();
    if (!now) return;
    const { model, pooling } = await served();
    const origin = new URL(".", document.baseURI).href.replace(/\/$/, "");
    code.firstChild.textContent = snippet(kind, { origin, body: now.body, keyed: key() !== null, model, pooling });
    say(said, inline(now.body) ? null : t("take.file"));
  }

  const button = (label, act) =>
    make("button", { click: async () => shown() && act({ ...shown(), model: (await served()).model }) }, label);

  function fill() {
    details.firstChild.textContent = t("take.title");
    code.setAttribute("aria-label", t("take.code"));
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
    const copy = make("button", { click: copied }, t("take.copy"));
    const files = [
      button("request.json", ({ body }) => save("request.json", JSON.stringify(body), "application/json")),
      button(t("take.json"), (now) => save("vectors.json", vectorsAsJson(now))),
      button(t("take.csv"), (now) => save("vectors.csv", vectorsAsCsv(now))),
      button(t("take.png"), ({ picture }) => picture()),
    ];
    content.replaceChildren(
      make("fieldset", { class: "choice" }, make("legend", {}, t("take.as")), ...radios),
      code,
      make("div", { class: "buttons" }, copy, ...files),
      said,
    );
    write();
  }

  async function copied() {
    try {
      await navigator.clipboard.writeText(code.textContent);
      say(said, t("take.copied"));
    } catch {
      // No clipboard without HTTPS: the code is marked, ready for the keyboard.
      getSelection().selectAllChildren(code);
      say(said, t("take.marked"));
    }
  }

  fill();
  onLanguage(fill);
  return { refresh: () => details.open && write() };
}
