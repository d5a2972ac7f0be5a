// A strip per piece of work: title, progress, what went wrong, cancel or dismiss.

import { sentence } from "./api.js";
import { $, h, plural } from "./dom.js";

/**
 * A strip on the page. `update` may be called as often as something changes:
 *
 *     {total: 240, finished: 80, failed: 2, rate: 31.5, eta_s: 5, state: "running",
 *      limited_by: {stage: "forward", share: 0.94}}
 */
export class Task {
  #title; #line; #bar; #errors; #stop; #dismiss;

  constructor(title, { onCancel, onErrors }) {
    this.#title = h("p", { class: "task-title" }, title);
    this.#line = h("p", { class: "task-line" });
    this.#bar = h("progress", { "aria-label": title });
    this.#stop = button("Cancel", () => {
      this.#stop.disabled = true;
      onCancel();
    });
    this.#dismiss = button("Dismiss", () => this.element.remove());
    this.#dismiss.hidden = true;
    this.#errors = h("details", { hidden: true }, h("summary"), h("ul", { class: "errors" }));
    this.#errors.addEventListener("toggle", async () => this.#errors.open && this.#list(await onErrors()));
    this.element = h("div", { class: "task", role: "group", "aria-label": title },
      h("div", {}, this.#title, this.#line),
      h("div", { class: "task-buttons" }, this.#stop, this.#dismiss),
      this.#bar, this.#errors);
    $("work").append(this.element);
  }

  update({ total, finished, failed, unchanged, rate, eta_s: eta, limited_by: limit, state, detail }) {
    const over = !["queued", "running"].includes(state);
    if (total) Object.assign(this.#bar, { max: total, value: finished });
    else this.#bar.removeAttribute("value");
    this.#bar.hidden = over;
    this.#stop.hidden = over;
    this.#dismiss.hidden = !over;
    this.#line.textContent = progressLine({ total, finished, unchanged, rate, eta, limit, state, detail });
    this.#errors.hidden = failed === 0;
    this.#errors.querySelector("summary").textContent = `${plural(failed, "picture")} could not be indexed`;
  }

  #list(errors) {
    const rows = errors.map(({ reference, detail }) => h("li", {}, h("b", {}, reference), ` ${sentence(detail)}`));
    this.#errors.querySelector("ul").replaceChildren(...rows);
  }
}

const button = (text, onclick) => h("button", { class: "button small", type: "button", onclick }, text);

const OPENINGS = { queued: "Waiting", cancelled: "Cancelled", failed: "Stopped", done: "Done" };

function progressLine({ total, finished, unchanged, rate, eta, limit, state, detail }) {
  const counted = total ? `${finished.toLocaleString()} of ${total.toLocaleString()}` : plural(finished, "picture");
  const running = state === "running";
  return [
    OPENINGS[state],
    state === "queued" ? null : counted,
    running && rate ? `${rate < 10 ? rate.toFixed(1) : Math.round(rate)} per second` : null,
    running && eta !== null && eta !== undefined ? `${duration(eta)} left` : null,
    running && limit ? `${limit.stage} limits (${Math.round(100 * limit.share)} %)` : null,
    unchanged ? `${unchanged.toLocaleString()} already there` : null,
    detail,
  ].filter(Boolean).join(" · ");
}

/** 42 -> "42 s", 400 -> "7 min", 9000 -> "2.5 h" */
export function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 3600 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
