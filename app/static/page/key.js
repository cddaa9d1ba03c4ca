// The API key: asked for in place when the server wants one, kept for this tab only.

import { find, say } from "./dom.js";
import { t } from "./language.js";

const KEPT = "key";
let entered = null; // settles for everybody who waits once a key is entered
let enter = null;

export const key = () => sessionStorage.getItem(KEPT);

export function setUpKey() {
  find("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const typed = find("key").value.trim();
    if (!typed) return;
    sessionStorage.setItem(KEPT, typed);
    find("key").value = "";
    close();
    enter?.();
    entered = null;
  });
  find("key-forget").addEventListener("click", () => {
    sessionStorage.removeItem(KEPT);
    location.reload();
  });
  close();
}

function close() {
  find("key-form").hidden = true;
  find("key-forget").hidden = key() === null;
}

// Resolves when there is a key to try that is not `refused`.
export async function askForKey(refused) {
  if (key() !== refused) return;
  if (!entered) {
    entered = new Promise((resolve) => (enter = resolve));
    sessionStorage.removeItem(KEPT);
    find("key-form").hidden = false;
    say(find("key-say"), t(refused ? "key.refused" : "key.needed"));
    find("key").focus();
  }
  await entered;
}
