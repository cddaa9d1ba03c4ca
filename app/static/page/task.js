// Work of which a view does one piece at a time: its sentence, its bar, its cancel button.

import { isCancel } from "./api.js";
import { find, say } from "./dom.js";
import { t } from "./language.js";

// Elements are `name`-say, -cancel and, where there is one, -progress; `busy` is the id of what is made anew.
// The function starts `act({ signal, notice, progress })` in place of what runs; true once that has succeeded.
// Its `stop` ends what runs without a word.
export function task(name, busy) {
  let running = null;
  const [cancel, bar, result] = [find(`${name}-cancel`), find(`${name}-progress`), busy && find(busy)];
  const notice = (sentence, error) => say(find(`${name}-say`), sentence, error);
  const progress = (done, of) => {
    bar.hidden = !of || done === of;
    Object.assign(bar, { value: done, max: of || 1 });
  };
  cancel.addEventListener("click", () => running?.abort());
  const start = async (act) => {
    running?.abort();
    const mine = (running = new AbortController());
    notice(null);
    cancel.hidden = false;
    result?.setAttribute("aria-busy", "true");
    try {
      await act({ signal: mine.signal, notice, progress });
      return true;
    } catch (error) {
      if (!isCancel(error)) notice(error.message, true);
      else if (running === mine) notice(t("cancelled"));
    } finally {
      if (running === mine) {
        cancel.hidden = true;
        if (bar) bar.hidden = true;
        result?.removeAttribute("aria-busy");
      }
    }
  };
  start.stop = () => {
    running?.abort();
    running = null;
    cancel.hidden = true;
    notice(null);
  };
  return start;
}
