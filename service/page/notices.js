// What must be known of the answers: untrained weights, a fallback device, a service not ready.

import * as api from "./api.js";
import { $, h } from "./dom.js";

const ASK_AGAIN_MS = 5000;
const NOT_READY = "The service is not ready: it starts, or a part of it has failed. This page asks again.";
let service = [];
let collections = [];
let current;

/** Show what the service says of itself, now and until it is ready. */
export async function start() {
  try {
    const state = await api.ready();
    service = state.ready ? state.notices : [NOT_READY, ...state.notices];
    if (!state.ready) setTimeout(start, ASK_AGAIN_MS);
  } catch (error) {
    service = [error.message];
    setTimeout(start, ASK_AGAIN_MS);
  }
  render();
}

/** Show what holds for the collection in view; the service repeats that of every collection. */
export function of(collection, all) {
  [current, collections] = [collection, all];
  render();
}

function render() {
  const names = collections.map(({ name }) => `${name}: `);
  const general = service.filter((notice) => !names.some((name) => notice.startsWith(name)));
  const all = [...new Set([...general, ...(current?.notices ?? [])].map(api.sentence))];
  const shown = [...$("notices").children].map((notice) => notice.dataset.text);
  if (shown.join("\n") === all.join("\n")) return;
  $("notices").hidden = all.length === 0;
  $("notices").replaceChildren(...all.map(notice));
}

const SVG = "http://www.w3.org/2000/svg";

function notice(text) {
  const sign = document.createElementNS(SVG, "svg");
  sign.setAttribute("viewBox", "0 0 16 16");
  sign.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", "M8 2.2 14.2 13H1.8zM8 6.4v3.2M8 11.4v.1");
  sign.append(path);
  // What stands between backticks is to be typed.
  const parts = text.split("`").map((part, at) => (at % 2 ? h("code", {}, part) : part));
  return h("p", { class: "notice", "data-text": text }, sign, h("span", {}, ...parts));
}
