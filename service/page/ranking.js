// How neighbours are ranked: once more with what was found, and each by its own neighbours.

import { $, h } from "./dom.js";

const EXPANSION = { n: 10, alpha: 3 };
const METHODS = {
  dba: ["Neighbourhoods", "Database-side augmentation: each picture is averaged with its neighbours"],
  diffusion: ["Diffusion", "A walk over the graph of the best candidates: what is like what is alike"],
  "k-reciprocal": ["Mutual neighbours", "k-reciprocal encoding: who shares its mutual neighbours comes first"],
};
const AS_FOUND = "Each picture by itself, by cosine";

/** @typedef {{expand?: boolean, rerank?: string}} Choice as the address has it */

/** What the service is asked for; a method that it does not have is left out. */
export const options = ({ expand, rerank }) => ({
  expansion: expand ? EXPANSION : undefined,
  rerank: rerank in METHODS ? rerank : undefined,
});

/** Show a choice; `onChange({expand, rerank})` hears of another one. */
export function show({ expand, rerank }, onChange) {
  const select = $("rerank");
  if (!select.options.length) {
    const choices = Object.entries(METHODS).map(([value, [label]]) => h("option", { value }, label));
    select.replaceChildren(h("option", { value: "" }, "Cosine"), ...choices);
  }
  select.value = rerank in METHODS ? rerank : "";
  $("expand").checked = Boolean(expand);
  $("ranking-note").textContent = METHODS[select.value]?.[1] ?? AS_FOUND;
  $("ranking").onchange = () => onChange({
    expand: $("expand").checked || undefined,
    rerank: select.value || undefined,
  });
}
