// How neighbours are ranked: once more with what was found, and each by its own neighbours.

import { $, h } from "./dom.js";

const EXPANSION = { n: 10, alpha: 3 };
const METHODS = {
  dba: {
    label: "Neighbourhoods",
    meaning: "Database-side augmentation: each picture is averaged with its neighbours",
  },
  diffusion: {
    label: "Diffusion",
    meaning: "A walk over the graph of the best candidates: what is like what is alike",
    parameters: { k: 10, seeds: 5, alpha: 0.8 }, // see docs/reranking.md: the paper's drift to hubs
  },
  "k-reciprocal": {
    label: "Mutual neighbours",
    meaning: "k-reciprocal encoding: who shares its mutual neighbours comes first",
  },
};
const AS_FOUND = "Each picture by itself, by cosine";

/** @typedef {{expand?: boolean, rerank?: string}} Choice as the address has it */

/** What the service is asked for; a method that it does not have is left out. */
export const options = ({ expand, rerank }) => ({
  expansion: expand ? EXPANSION : undefined,
  rerank: rerank in METHODS ? { method: rerank, ...METHODS[rerank].parameters } : undefined,
});

/** Show a choice; `onChange({expand, rerank})` hears of another one. */
export function show({ expand, rerank }, onChange) {
  const select = $("rerank");
  if (!select.options.length) {
    const choices = Object.entries(METHODS).map(([value, { label }]) => h("option", { value }, label));
    select.replaceChildren(h("option", { value: "" }, "Cosine"), ...choices);
  }
  select.value = rerank in METHODS ? rerank : "";
  $("expand").checked = Boolean(expand);
  $("ranking-note").textContent = METHODS[select.value]?.meaning ?? AS_FOUND;
  $("ranking").onchange = () => onChange({
    expand: $("expand").checked || undefined,
    rerank: select.value || undefined,
  });
}
