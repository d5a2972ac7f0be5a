// The neighbours of a query, best first, page by page.

import * as api from "./api.js";
import { format } from "./address.js";
import { card, walkable } from "./cards.js";
import { $, announce, plural, problemBlock } from "./dom.js";
import { moreButton } from "./gallery.js";
import * as why from "./why.js";

const PAGE = 24;
const ALONE = "The collection holds no other picture.";
let asking = new AbortController();

export function start() {
  walkable($("neighbours"));
}

export function clear() {
  asking.abort();
  $("neighbours").replaceChildren();
  $("results-foot").replaceChildren();
  $("took").textContent = "";
}

/**
 * Search, and show the first page in place of what was there. `query` is `{item}` or `{files}`,
 * `options` what the service is asked for, `choice` what links to further searches keep.
 */
export async function show(collection, query, options, choice) {
  await page(collection, query, options, choice, 0);
}

/** What stands where the neighbours would be. */
export function refuse(problem, retry) {
  clear();
  $("results-foot").replaceChildren(problemBlock(problem, retry));
}

async function page(collection, query, options, choice, offset) {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  busy(true);
  try {
    const found = await api.search(collection, query, { k: PAGE, ...options, offset }, signal);
    append(collection, query, options, choice, offset, found);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (offset === 0) clear();
    $("results-foot").replaceChildren(problemBlock(error, () => page(collection, query, options, choice, offset)));
  } finally {
    if (signal === asking.signal) busy(false);
  }
}

function append(collection, query, options, choice, offset, found) {
  const list = $("neighbours");
  const foot = $("results-foot");
  const hadFocus = foot.contains(document.activeElement);
  const link = ({ id }) => format({ collection, item: id, ...choice });
  const cards = found.neighbours.map((neighbour) =>
    card(collection, neighbour, link(neighbour), explaining(collection, query, options, neighbour)));
  if (offset === 0) {
    list.replaceChildren(...cards);
    $("took").textContent = spent(found.took_ms);
  } else {
    list.append(...cards);
    if (hadFocus) cards[0]?.querySelector("a").focus();
  }
  const next = () => page(collection, query, options, choice, offset + cards.length);
  const total = list.children.length;
  foot.replaceChildren(...(found.more ? [moreButton(next)] : []), ...(total ? [] : [ALONE]));
  const best = list.querySelector(".score")?.textContent;
  announce(total ? `${plural(total, "neighbour")}, the best with score ${best}` : ALONE);
}

/** What explains a neighbour; what several pictures share has no explanation. */
function explaining(collection, query, options, neighbour) {
  if (query.files?.length > 1) return undefined;
  return () => why.show(collection, query, neighbour, options);
}

/** {decode: 3.2, forward: 12, search: 0.3} -> "decode 3.2 ms · forward 12 ms · search 0.3 ms" */
function spent(took) {
  const short = (ms) => (ms < 10 ? ms.toFixed(1) : Math.round(ms).toString());
  const stages = Object.entries(took).filter(([, ms]) => ms > 0);
  return stages.map(([stage, ms]) => `${stage} ${short(ms)} ms`).join(" · ");
}

function busy(is) {
  document.querySelector(".results").setAttribute("aria-busy", String(is));
}
