// Pictures that come in: dropped, pasted or chosen.

import { $ } from "./dom.js";

/** `onSearch(files)` and `onAdd(files)` hear of them; `mayBeSearched()` says whether both make sense. */
export function start({ onSearch, onAdd, mayBeSearched }) {
  chooser("search-files", ["choose", "choose-here"], onSearch);
  chooser("add-files", ["add", "add-first"], onAdd);
  dropping({ search: onSearch, add: onAdd }, mayBeSearched);
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length === 0) return;
    event.preventDefault();
    (mayBeSearched() ? onSearch : onAdd)(files);
  });
}

function chooser(inputId, buttonIds, onFiles) {
  const input = $(inputId);
  for (const id of buttonIds) $(id).addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // The same file may be chosen again.
    if (files.length) onFiles(files);
  });
}

function dropping(actions, mayBeSearched) {
  const drop = $("drop");
  const zones = [...drop.querySelectorAll(".drop-zone")];
  const zoneOf = (event) => event.target.closest?.(".drop-zone") ?? zones.find((zone) => !zone.hidden);
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  const light = (zone) => zones.forEach((other) => other.classList.toggle("over", other === zone));
  document.addEventListener("dragenter", (event) => {
    if (!carriesFiles(event)) return;
    zones[0].hidden = !mayBeSearched();
    drop.hidden = false;
  });
  document.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    light(zoneOf(event));
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) drop.hidden = true;
  });
  document.addEventListener("drop", async (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    drop.hidden = true;
    const files = await dropped(event.dataTransfer);
    if (files.length) actions[zoneOf(event).dataset.drop](files);
  });
}

/** The files of a drop, folders opened. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.());
  if (!entries.some((entry) => entry?.isDirectory)) return [...transfer.files];
  return (await Promise.all(entries.filter(Boolean).map(opened))).flat();
}

async function opened(entry) {
  if (entry.name.startsWith(".")) return [];
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return (await Promise.all(found.map(opened))).flat();
    found.push(...some);
  }
}
