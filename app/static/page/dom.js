// Elements: finding, making and saving them.

export const find = (id) => document.getElementById(id);

// make("p", { class: "hint", hidden: true }, "text", element): attributes as in HTML, functions as listeners.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  if (tag === "button") element.type = "button"; // or it would submit a form around it
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// In a list that is one stop of the tab key: an arrow leads from one of these buttons to the next.
export function along(buttons, event) {
  const to = buttons[buttons.indexOf(event.target) + ({ ArrowUp: -1, ArrowDown: 1 }[event.key] ?? NaN)];
  if (!to) return;
  event.preventDefault();
  for (const button of buttons) button.tabIndex = button === to ? 0 : -1;
  to.focus();
}

// Where a pointer moves over an element: at most once a frame, however often the mouse tells.
export function onMove(element, act) {
  let latest = null;
  element.addEventListener("pointermove", (event) => {
    if (!latest)
      requestAnimationFrame(() => {
        act(latest);
        latest = null;
      });
    latest = event;
  });
}

// Sizes and colours that are computed. Only the CSSOM may set them, the policy forbids style attributes.
export function style(element, values) {
  for (const [name, value] of Object.entries(values)) element.style.setProperty(name, value);
  return element;
}

// Scrolls until an element is seen, smoothly unless the reader wants nothing to move.
export function reveal(element, block = "center") {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  element.scrollIntoView({ behavior: still ? "auto" : "smooth", block, inline: "nearest" });
}

// What is between backticks is code.
export function say(element, sentence, error = false) {
  const pieces = (sentence ?? "").split("`");
  const coded = pieces.length % 2 ? pieces : [pieces.join("`")];
  element.replaceChildren(...coded.map((piece, index) => (index % 2 ? make("code", {}, piece) : piece)));
  element.hidden = !sentence;
  element.classList.toggle("error", error);
}

// Gives a select other options, and keeps what was chosen where it is still there.
export function choices(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  if (options.some(([value]) => String(value) === before)) select.value = before;
}

export const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value;

export function save(name, content, type) {
  const blob = content instanceof Blob ? content : new Blob([content], { type });
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

export const short = (text, most = 60) =>
  [...text].length > most ? `${[...text].slice(0, most - 1).join("")}…` : text;

// Without halves of a surrogate pair, which the server does not take.
export const wellFormed = (text) => text.toWellFormed?.() ?? text;

// "text\nwith lines" to its lines that are not empty.
export const lines = (text) =>
  wellFormed(text)
    .split(/\r\n|\r|\n/)
    .map((line) => line.trim())
    .filter(Boolean);
