// Elements without a template language.

export const $ = (id) => document.getElementById(id);

/**
 * An element: attributes and `on…` listeners by name, then children.
 *
 *     h("button", { type: "button", onclick: close }, "Close")
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Say something to those who listen to the page. */
export function announce(text) {
  $("status").textContent = text;
}

export const plural = (count, noun) => `${count.toLocaleString()} ${noun}${count === 1 ? "" : "s"}`;

/** An error where its result would have been. */
export function problemBlock(problem, retry) {
  return h("div", { class: "problem", role: "alert" },
    h("p", {}, problem.message),
    problem.code ? h("code", {}, problem.code) : null,
    retry ? h("button", { class: "button small", type: "button", onclick: retry }, "Try again") : null);
}
