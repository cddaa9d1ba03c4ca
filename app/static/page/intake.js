// How texts come into a view besides typing.

// Characters. Chromium takes seconds to paste hundreds of lines as an edit that can be undone.
const LARGE = 5000;

// A file dropped anywhere on a view, while `target` is lit, or chosen; `take` is given it, and how many came with it.
export function takeFiles(view, target, input, take) {
  view.addEventListener("dragover", (event) => {
    event.preventDefault();
    target.classList.add("dropping");
  });
  view.addEventListener("dragleave", () => target.classList.remove("dropping"));
  view.addEventListener("drop", (event) => {
    target.classList.remove("dropping");
    const [file, ...others] = event.dataTransfer.files;
    if (!file) return; // dropped text goes in by itself
    event.preventDefault();
    take(file, others.length);
  });
  input.addEventListener("change", () => {
    const [file] = input.files;
    if (file) take(file, 0);
    input.value = ""; // so that the same file can be chosen again
  });
}

// Files dropped on a text area or chosen beside it, and large pastes.
export function takeTexts(area, input, take) {
  takeFiles(area.closest("section"), area, input, take);
  area.addEventListener("paste", (event) => {
    const text = event.clipboardData.getData("text/plain");
    if (text.length < LARGE) return;
    event.preventDefault();
    area.setRangeText(text, area.selectionStart, area.selectionEnd, "end");
    area.dispatchEvent(new Event("input"));
  });
}
