// Why a neighbour was found: both pictures, and over them what each position adds to the score.

import * as api from "./api.js";
import { $, h, problemBlock } from "./dom.js";
import { described, paint } from "./heatmap.js";
import * as pictures from "./pictures.js";

const title = (name) => name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " ");
const percent = (share) => `${Math.round(share * 100)} %`;

let asking = new AbortController();

export function start() {
  $("why-close").addEventListener("click", () => $("why").close());
  $("why").addEventListener("close", () => asking.abort());
  $("why").addEventListener("click", (event) => {
    if (event.target === $("why")) $("why").close(); // the backdrop
  });
  $("why-heat").addEventListener("change", (event) => {
    $("why").classList.toggle("bare", !event.target.checked);
  });
}

/** Explain `neighbour` as found by `query`, `{item}` or `{files}` with one: cosines, however it was ranked. */
export async function show(collection, query, neighbour, { space, region }) {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  $("why-spaces").replaceChildren();
  $("why-score").textContent = "";
  $("why-problem").replaceChildren();
  const sides = {
    query: side("why-query", $("query-picture").dataset.source, $("query-picture").alt || "The query"),
    neighbour: side("why-neighbour", api.thumbnail(collection, neighbour.id), neighbour.name),
  };
  outline(sides.query, region, "searched");
  if (!$("why").open) $("why").showModal();
  $("why").setAttribute("aria-busy", "true");
  try {
    const found = await api.explain(collection, query, { neighbour: neighbour.id, space, region }, signal);
    outline(sides.neighbour, found.where, "best match");
    $("why-score").textContent = `Score ${found.score.toFixed(3)}`;
    showSpaces(found.spaces, (space) => showHeat(sides, space));
    showHeat(sides, found.spaces[0]);
  } catch (error) {
    if (error.name === "AbortError") return;
    $("why-problem").replaceChildren(problemBlock(error, () => show(collection, query, neighbour, { space, region })));
  } finally {
    if (signal === asking.signal) $("why").setAttribute("aria-busy", "false");
  }
}

/** One picture with a canvas over it. */
function side(id, source, name) {
  const image = h("img", { alt: name });
  const canvas = h("canvas", { role: "img", hidden: true });
  const frame = h("div", { class: "why-frame" }, image, canvas);
  const shape = () => frame.style.setProperty("--ratio", (image.naturalWidth / image.naturalHeight).toFixed(4));
  image.addEventListener("load", shape);
  pictures.show(image, source);
  $(id).querySelector(".why-frame").replaceWith(frame);
  $(id).querySelector("figcaption b").textContent = name;
  return { frame, canvas };
}

function place(element, [x0, y0, x1, y1]) {
  const ends = { "--x0": x0, "--y0": y0, "--x1": x1, "--y1": y1 };
  for (const [name, share] of Object.entries(ends)) element.style.setProperty(name, `${share * 100}%`);
}

function outline({ frame }, box, label) {
  if (!box) return;
  const element = h("div", { class: "why-box" }, h("span", {}, label));
  place(element, box);
  frame.append(element);
}

function showHeat(sides, space) {
  for (const [name, { canvas }] of Object.entries(sides)) {
    const { grid, box } = space[name];
    place(canvas, box);
    paint(canvas, grid);
    canvas.hidden = false;
    canvas.setAttribute("aria-label", described(grid));
  }
}

/** A bar for each space, by its share of the score; with several, each chooses its heatmaps. */
function showSpaces(spaces, onChoose) {
  const rows = spaces.map((space, at) => {
    const bar = h("span", { class: "why-bar" });
    bar.style.setProperty("--share", `${Math.abs(space.share) * 100}%`);
    bar.classList.toggle("against", space.share < 0);
    const choice = h("input", { type: "radio", name: "why-space", value: space.space, onchange: () => onChoose(space) });
    choice.checked = at === 0;
    return h("label", {}, spaces.length > 1 ? choice : null,
      h("span", { class: "why-name" }, title(space.space)), bar,
      h("span", { class: "why-share" }, percent(space.share)),
      h("span", { class: "quiet" }, `cosine ${space.score.toFixed(3)}${space.scales_left_out.length ? " at scale 1" : ""}`));
  });
  $("why-spaces").replaceChildren(...rows);
}
