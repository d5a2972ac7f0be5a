// Which descriptors are compared: one space, or several with weights.

import { $, h } from "./dom.js";

const MIX = "mix";
const EVEN = 0.5;
const MEANING = {
  low: "Colours and fine textures",
  mid: "Patterns and parts",
  high: "Objects and scenes",
};

const title = (name) => name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " ");

/** The space that is searched where the address names none. */
export function chosen(collection, space) {
  const names = Object.keys(collection.spaces);
  const known = typeof space === "string" ? [space] : Object.keys(space ?? {});
  const usable = known.length > 0 && known.every((name) => names.includes(name));
  return usable ? space : names.includes("high") ? "high" : names[0];
}

/** Show a collection's spaces; `onChange(space)` hears of another choice. */
export function show(collection, space, onChange) {
  const names = Object.keys(collection.spaces);
  const mixed = typeof space !== "string";
  const choices = names.length > 1 ? [...names, MIX] : names;
  const even = Object.fromEntries(names.map((name) => [name, EVEN]));
  const current = mixed ? MIX : space;
  if ($("spaces").dataset.of === choices.join()) {
    for (const input of $("spaces").querySelectorAll("input")) input.checked = input.value === current;
  } else {
    $("spaces").dataset.of = choices.join();
    $("spaces").replaceChildren(...choices.map((name) => segment(name, name === current)));
  }
  $("spaces").onchange = (event) => onChange(event.target.value === MIX ? even : event.target.value);
  $("mix").hidden = !mixed;
  if (mixed) showMix(names, space, onChange);
  $("space-note").textContent = mixed
    ? "The weighted sum of the cosines in each space"
    : [MEANING[space], collection.spaces[space].spec].filter(Boolean).join(" · ");
}

function segment(name, checked) {
  const input = h("input", { type: "radio", name: "space", value: name });
  input.checked = checked;
  return h("label", {}, input, title(name));
}

/** Sliders for the weights; what they show is each space's share of the score. */
function showMix(names, weights, onChange) {
  const mix = $("mix");
  if (mix.dataset.of !== names.join()) {
    mix.dataset.of = names.join();
    mix.replaceChildren(...names.map((name) => h("label", {}, title(name),
      h("input", { type: "range", min: "0", max: "1", step: "0.05", name }), h("output"))));
  }
  const inputs = [...mix.querySelectorAll("input")];
  const showShares = () => {
    const sum = inputs.reduce((total, input) => total + Number(input.value), 0) || 1;
    for (const input of inputs) input.nextElementSibling.value = `${Math.round((Number(input.value) / sum) * 100)} %`;
  };
  for (const input of inputs) input.value = weights[input.name] ?? 0;
  showShares();
  mix.oninput = showShares;
  mix.onchange = () => {
    const some = inputs.some((input) => Number(input.value) > 0);
    onChange(Object.fromEntries(inputs.map((input) => [input.name, some ? Number(input.value) : EVEN])));
  };
}
