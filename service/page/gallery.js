// The pictures of a collection, page by page.

import * as api from "./api.js";
import { format } from "./address.js";
import { card, walkable } from "./cards.js";
import { $, announce, h, problemBlock } from "./dom.js";

const PAGE = 60;
let shown = { name: undefined, items: undefined };
let loading = new AbortController();

export function start() {
  walkable($("gallery"));
}

/** Show a collection's gallery; what is there already stays, with its place on the page. */
export async function show(collection, space) {
  const empty = collection.items === 0;
  $("gallery-empty").hidden = !empty;
  $("welcome").hidden = empty;
  $("empty-option").textContent = collection.name === "default" ? "" : `--collection ${collection.name} `;
  if (shown.name === collection.name && shown.items === collection.items) return;
  shown = { name: collection.name, items: collection.items };
  $("gallery").replaceChildren();
  $("gallery-foot").replaceChildren();
  if (!empty) await more(collection.name, undefined, space);
}

async function more(name, after, space) {
  loading.abort();
  loading = new AbortController();
  const foot = $("gallery-foot");
  try {
    const page = await api.items(name, { limit: PAGE, after, signal: loading.signal });
    const cards = page.items.map((item) => card(name, item, format({ collection: name, item: item.id, space })));
    $("gallery").append(...cards);
    if (after) announce(`${cards.length} more pictures`);
    if (after && foot.contains(document.activeElement)) cards[0]?.querySelector("a").focus();
    foot.replaceChildren(...(page.next ? [moreButton(() => more(name, page.next, space))] : []));
  } catch (error) {
    if (error.name === "AbortError") return;
    foot.replaceChildren(problemBlock(error, () => more(name, after, space)));
  }
}

export function moreButton(onclick) {
  return h("button", { class: "button", type: "button", onclick }, "Show more");
}
