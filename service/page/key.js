// The API key of this tab, where the service asks for one. It goes when the tab is closed.

import { $ } from "./dom.js";

const NAME = "pool5-key";
let asking; // while the dialog is open: whether a key was given
let declined = false;

export const isHeld = () => Boolean(sessionStorage.getItem(NAME));

/** What a request has to carry. */
export function header() {
  const key = sessionStorage.getItem(NAME);
  return key ? { authorization: `Bearer ${key}` } : {};
}

/** Ask for a key, once for all requests that wait for one; false: the visitor has none. */
export function ask(reason) {
  $("key-button").hidden = false;
  if (declined) return Promise.resolve(false);
  asking ??= open(reason).finally(() => { asking = undefined; });
  return asking;
}

export function start() {
  $("key-button").hidden = !isHeld();
  $("key-button").addEventListener("click", async () => {
    declined = false;
    if (await ask("Give another key, or none to forget this one.")) location.reload();
  });
}

function open(reason) {
  const dialog = $("key");
  $("key-reason").textContent = reason;
  $("key-input").value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const ended = new AbortController();
    const { signal } = ended;
    const end = (given) => {
      ended.abort();
      declined = !given;
      dialog.close();
      resolve(given);
    };
    dialog.addEventListener("close", () => end(false), { signal });
    $("key-cancel").addEventListener("click", () => end(false), { signal });
    $("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const key = $("key-input").value.trim();
      if (key) sessionStorage.setItem(NAME, key);
      else sessionStorage.removeItem(NAME);
      end(true);
    }, { signal });
  });
}
