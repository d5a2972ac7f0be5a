// The query panel: what is searched by, its region, its facts.

import * as api from "./api.js";
import { $, announce, h, plural } from "./dom.js";
import { show } from "./pictures.js";
import { RegionBox, described } from "./region.js";

let box;

/** `onRegion(region | undefined, keyboard)` hears when the region settles. */
export function start(onRegion) {
  const changed = (region, keyboard) => {
    showTools(region);
    announce(region ? described(region) : "Whole picture");
    onRegion(region, keyboard);
  };
  box = new RegionBox($("stage"), $("region"), changed);
  $("region-start").addEventListener("click", () => box.begin());
  $("region-clear").addEventListener("click", () => clearRegion());
  $("query-picture").addEventListener("error", () => cannotShow());
  $("query-picture").addEventListener("load", () => enableRegion());
}

/** Search by the whole picture again; false where it already was. */
export function clearRegion() {
  if (!box.region) return false;
  const hadFocus = $("search-view").contains(document.activeElement);
  box.clear();
  if (hadFocus) $("region-start").focus();
  return true;
}

export const setRegion = (region) => {
  box.show(region);
  showTools(region);
};

function showTools(region) {
  $("region-start").hidden = Boolean(region);
  $("region-clear").hidden = !region;
  document.querySelector("#region-tools .hint").hidden = Boolean(region);
}

/** Show an indexed picture as the query; its facts follow when they are known. */
export function showItem(collection, id) {
  showOne(api.thumbnail(collection, id), "");
}

/** Show uploads as the query; `onRemove(index)` takes one of several away. */
export function showUploads(pictures, onRemove) {
  const several = pictures.length > 1;
  $("stage").hidden = several;
  $("region-tools").hidden = several;
  $("positives").hidden = !several;
  const rows = pictures.map(({ file, preview }, at) => positive(file.name, preview, () => onRemove(at)));
  $("positives").replaceChildren(...(several ? rows : []));
  const [{ file, preview }] = pictures;
  if (!several) showOne(preview, file.name);
  $("facts").replaceChildren(h("h2", {}, several ? `What ${plural(pictures.length, "picture")} share` : file.name));
}

function showOne(source, name) {
  const picture = $("query-picture");
  $("stage").hidden = false;
  $("positives").hidden = true;
  if (picture.dataset.source === source) {
    if (picture.naturalWidth) enableRegion();
    return;
  }
  $("stage").classList.remove("without-picture");
  $("stage-note").hidden = true;
  picture.alt = name;
  show(picture, source);
}

function positive(name, preview, onclick) {
  const image = h("img", { src: preview, alt: name });
  image.addEventListener("error", () => image.replaceWith(h("span", { class: "missing" }, name)));
  return h("li", {}, image,
    h("button", { class: "remove", type: "button", "aria-label": `Search without ${name}`, onclick }, "×"));
}

function enableRegion() {
  box.enabled = true;
  $("region-tools").hidden = false;
  const { naturalWidth, naturalHeight } = $("query-picture");
  $("stage").style.setProperty("--ratio", (naturalWidth / naturalHeight).toFixed(4));
}

/** HEIC, TIFF and others: the service reads what a browser may not. */
function cannotShow() {
  box.enabled = false;
  $("region-tools").hidden = true;
  $("stage").classList.add("without-picture");
  $("stage-note").hidden = false;
  $("stage-note").textContent = "This browser cannot show this kind of picture.";
}

/** Name, size and metadata of an item. */
export function showFacts(item) {
  const metadata = Object.entries(item.metadata).map(([key, value]) => [key, shown(value)]);
  const facts = [["Size", `${item.width} × ${item.height}`], ...metadata];
  $("facts").replaceChildren(h("h2", {}, item.name),
    h("dl", {}, ...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
  $("query-picture").alt = item.name;
}

const shown = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value));
