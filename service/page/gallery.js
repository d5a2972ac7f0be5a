// The pictures of a collection, page by page.

import * as api from "./api.js";
import { format, parse } from "./address.js";
import { card, walkable } from "./cards.js";
import { $, announce, h, problemBlock } from "./dom.js";

const PAGE = 60;
const LARGEST_PAGE = 1000; // what the service gives at once
let shown = {}; // name and number of items of the collection on the page
let loading = new AbortController();

export function start() {
  walkable($("gallery"));
}

/** Whether more pictures would fit on the first page. */
export const isShort = () => $("gallery").children.length < PAGE;

/** Show a collection's gallery; one that has grown keeps its length, its place and the focus. */
export async function show(collection, space) {
  const empty = collection.items === 0;
  $("gallery-empty").hidden = !empty;
  $("welcome").hidden = empty;
  $("empty-option").textContent = collection.name === "default" ? "" : `--collection ${collection.name} `;
  const isSame = shown.name === collection.name;
  if (isSame && shown.items === collection.items) {
    for (const link of $("gallery").querySelectorAll("a")) link.hash = format({ ...parse(link.hash), space });
    return;
  }
  shown = { name: collection.name, items: collection.items };
  if (!isSame || empty) {
    $("gallery").replaceChildren();
    $("gallery-foot").replaceChildren();
  }
  const limit = Math.min(Math.max(PAGE, $("gallery").children.length), LARGEST_PAGE);
  if (!empty) await load(collection.name, { limit }, space, replaced);
}

/** What stands where the pictures would be. */
export function refuse(problem, retry) {
  shown = {};
  $("welcome").hidden = $("gallery-empty").hidden = true;
  $("gallery").replaceChildren();
  $("gallery-foot").replaceChildren(problemBlock(problem, retry));
}

async function load(name, page, space, put) {
  loading.abort();
  loading = new AbortController();
  try {
    const { items, next } = await api.items(name, { ...page, signal: loading.signal });
    put(items.map((item) => card(name, item, format({ collection: name, item: item.id, space }))));
    const more = () => load(name, { limit: PAGE, after: next }, space, appended);
    $("gallery-foot").replaceChildren(...(next ? [moreButton(more)] : []));
  } catch (error) {
    if (error.name === "AbortError") return;
    $("gallery-foot").replaceChildren(problemBlock(error, () => load(name, page, space, put)));
  }
}

function replaced(cards) {
  const focused = $("gallery").contains(document.activeElement) && document.activeElement.href;
  $("gallery").replaceChildren(...cards);
  if (focused) cards.map((card) => card.querySelector("a")).find((link) => link.href === focused)?.focus();
}

function appended(cards) {
  const hadFocus = $("gallery-foot").contains(document.activeElement);
  $("gallery").append(...cards);
  announce(`${cards.length} more pictures`);
  if (hadFocus) cards[0]?.querySelector("a").focus();
}

export function moreButton(onclick) {
  return h("button", { class: "button", type: "button", onclick }, "Show more");
}
