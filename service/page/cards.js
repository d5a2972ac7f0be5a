// Pictures in justified rows, and the arrow keys that walk them.

import * as api from "./api.js";
import { h } from "./dom.js";
import { show } from "./pictures.js";

const RATIOS = { narrowest: 0.56, widest: 2.2 };
const shapes = new Map(); // item id -> width / height, as learnt from items and from thumbnails

/**
 * A picture as a link to the search by it; `item` is an item or, with a score, a neighbour.
 * `onWhy` explains a neighbour.
 */
export function card(collection, item, href, onWhy) {
  const said = summary(item.metadata);
  const score = item.score === undefined ? null : scored(item);
  const image = h("img", { alt: "", loading: "lazy", decoding: "async", draggable: "false" });
  const element = h("li", { class: "card" },
    h("a", { href, tabindex: "-1", title: item.name },
      h("span", { class: "frame", "data-name": item.name }, image),
      h("span", { class: "caption" },
        h("span", { class: "name" }, item.name), score,
        said ? h("span", { class: "meta" }, said) : null)),
    onWhy ? whyButton(item, onWhy) : null);
  const shape = (ratio) => {
    shapes.set(item.id, ratio);
    element.style.setProperty("--ratio", Math.min(Math.max(ratio, RATIOS.narrowest), RATIOS.widest).toFixed(4));
  };
  if (item.width) shape(item.width / item.height);
  else if (shapes.has(item.id)) shape(shapes.get(item.id));
  else image.addEventListener("load", () => shape(image.naturalWidth / image.naturalHeight));
  image.addEventListener("error", () => element.classList.add("bare"));
  show(image, api.thumbnail(collection, item.id));
  return element;
}

/** A score; where a method of re-ranking gave it, the cosine stands behind it. */
function scored({ score, similarity }) {
  const title = score === similarity ? undefined : `cosine ${similarity.toFixed(3)}`;
  return h("span", { class: "score", title }, score.toFixed(3));
}

const whyButton = (item, onclick) =>
  h("button", { class: "why-button", type: "button", tabindex: "-1", "aria-label": `Why ${item.name} was found`, onclick }, "Why?");

/** Metadata on one line; the path says no more than folder and name do. */
function summary(metadata) {
  return Object.entries(metadata)
    .filter(([key, value]) => key !== "path" && value !== null && value !== "" && typeof value !== "object")
    .map(([key, value]) => (key === "folder" ? value : `${key}: ${value}`))
    .join(" · ");
}

/** One tab stop for a list of cards (and one for its buttons); arrow keys, Home and End walk in it. */
export function walkable(list) {
  const links = () => [...list.querySelectorAll("a")];
  const stopAt = (link) => {
    for (const other of links()) {
      const tabIndex = other === link ? 0 : -1;
      for (const stop of other.parentElement.querySelectorAll("a, button")) stop.tabIndex = tabIndex;
    }
  };
  list.addEventListener("focusin", (event) => stopAt(event.target.closest(".card").querySelector("a")));
  list.addEventListener("keydown", (event) => {
    const here = document.activeElement.closest(".card")?.querySelector("a");
    const target = destination(links(), here, event);
    if (!target) return;
    event.preventDefault();
    target.focus();
  });
  new MutationObserver(() => {
    if (!list.querySelector('a[tabindex="0"]')) stopAt(links()[0]);
  }).observe(list, { childList: true });
}

function destination(links, current, { key, altKey, ctrlKey, metaKey }) {
  if (altKey || ctrlKey || metaKey) return undefined;
  const at = links.indexOf(current);
  const walks = {
    ArrowLeft: () => links[at - 1],
    ArrowRight: () => links[at + 1],
    ArrowUp: () => inNextRow(links.slice(0, at).reverse(), current),
    ArrowDown: () => inNextRow(links.slice(at + 1), current),
    Home: () => links[0],
    End: () => links.at(-1),
  };
  return walks[key]?.();
}

/** Of the row that comes first in `links`, the picture whose middle is nearest. */
function inNextRow(links, current) {
  const box = (link) => link.getBoundingClientRect();
  const middle = (link) => box(link).left + box(link).width / 2;
  const here = box(current).top;
  const row = links.find((link) => Math.abs(box(link).top - here) > 2);
  const candidates = links.filter((link) => row && Math.abs(box(link).top - box(row).top) < 2);
  const distance = (link) => Math.abs(middle(link) - middle(current));
  return candidates.sort((a, b) => distance(a) - distance(b))[0];
}
