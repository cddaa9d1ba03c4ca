// How texts come into a text area besides typing.

// Characters. Chromium takes seconds to paste hundreds of lines as an edit that can be undone.
const LARGE = 5000;

// Files dropped on a text area or chosen beside it, and large pastes.
export function takeTexts(area, input, take) {
  const view = area.closest("section"); // or a file that misses the area would replace the page
  view.addEventListener("dragover", (event) => {
    event.preventDefault();
    area.classList.add("dropping");
  });
  view.addEventListener("dragleave", () => area.classList.remove("dropping"));
  view.addEventListener("drop", (event) => {
    area.classList.remove("dropping");
    const [file] = event.dataTransfer.files;
    if (!file) return; // dropped text goes in by itself
    event.preventDefault();
    take(file);
  });
  input.addEventListener("change", () => input.files[0] && take(input.files[0]));
  area.addEventListener("paste", (event) => {
    const text = event.clipboardData.getData("text/plain");
    if (text.length < LARGE) return;
    event.preventDefault();
    area.setRangeText(text, area.selectionStart, area.selectionEnd, "end");
    area.dispatchEvent(new Event("input"));
  });
}
