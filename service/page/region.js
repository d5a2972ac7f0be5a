// A box on the query picture, by mouse, finger or arrow keys. Regions are shares of the picture.

const SMALLEST = 0.05;
const FIRST = [0.25, 0.25, 0.75, 0.75];
const STEP = 0.02;
const CLICK_PIXELS = 6;
const SETTLES_MS = 350;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
// Which ends of [x0, y0, x1, y1] a grip carries along.
const CARRIED = { move: [0, 1, 2, 3], nw: [0, 1], ne: [2, 1], sw: [0, 3], se: [2, 3] };

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** The region after its grip went by (dx, dy); it stays within the picture and never vanishes. */
export function dragged(region, grip, dx, dy) {
  const by = [dx, dy];
  if (grip === "move") {
    const within = by.map((delta, axis) => clamp(delta, -region[axis], 1 - region[axis + 2]));
    return region.map((share, end) => share + within[end % 2]);
  }
  return region.map((share, end) => {
    if (!CARRIED[grip].includes(end)) return share;
    const [low, high] = end < 2 ? [0, region[end + 2] - SMALLEST] : [region[end - 2] + SMALLEST, 1];
    return clamp(share + by[end % 2], low, high);
  });
}

/** The region between two points, at least the smallest that can be searched by. */
export function between([ax, ay], [bx, by]) {
  const sides = [[ax, bx], [ay, by]].map(([a, b]) => {
    const low = clamp(Math.min(a, b), 0, 1 - SMALLEST);
    return [low, clamp(Math.max(a, b), low + SMALLEST, 1)];
  });
  return [sides[0][0], sides[1][0], sides[0][1], sides[1][1]];
}

export function described([x0, y0, x1, y1]) {
  const percent = (share) => Math.round(share * 100);
  return `Region from ${percent(x0)} to ${percent(x1)} percent across, ${percent(y0)} to ${percent(y1)} percent down`;
}

/** Lets a region be set on `stage`; `onChange(region | undefined, keyboard)` hears when it settles. */
export class RegionBox {
  constructor(stage, box, onChange) {
    Object.assign(this, { stage, box, onChange, region: undefined, drag: undefined, timer: 0, enabled: true });
    stage.addEventListener("pointerdown", (event) => this.#press(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    stage.addEventListener("pointerup", (event) => this.#release(event));
    stage.addEventListener("pointercancel", () => this.#abandon());
    stage.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Show a region, or none, without telling anybody. */
  show(region) {
    clearTimeout(this.timer);
    this.region = region;
    this.box.hidden = !region;
    this.stage.classList.toggle("has-region", Boolean(region));
    ["x0", "y0", "x1", "y1"].forEach((end, at) => {
      this.box.style.setProperty(`--${end}`, `${(region?.[at] ?? 0) * 100}%`);
    });
  }

  /** Begin with a region in the middle, ready for the arrow keys. */
  begin() {
    this.show(FIRST);
    this.box.querySelector(".region-body").focus();
    this.onChange(this.region, false);
  }

  clear() {
    this.show(undefined);
    this.onChange(undefined, false);
  }

  #point(event) {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / height];
  }

  #press(event) {
    // A finger on a picture without a region scrolls the page.
    const scrolls = event.pointerType === "touch" && !this.region;
    if (!this.enabled || scrolls || event.button !== 0) return;
    const grip = event.target.dataset.grip;
    const at = [event.clientX, event.clientY];
    this.drag = { grip, from: this.#point(event), region: this.region, at, moved: false };
    this.stage.setPointerCapture(event.pointerId);
    if (!grip) event.preventDefault();
  }

  #move(event) {
    if (!this.drag) return;
    const { grip, from, region, at } = this.drag;
    this.drag.moved ||= Math.hypot(event.clientX - at[0], event.clientY - at[1]) >= CLICK_PIXELS;
    if (!this.drag.moved) return;
    const to = this.#point(event);
    this.show(grip ? dragged(region, grip, to[0] - from[0], to[1] - from[1]) : between(from, to));
  }

  #release(event) {
    if (!this.drag) return;
    const { moved } = this.drag;
    this.drag = undefined;
    this.stage.releasePointerCapture(event.pointerId);
    if (moved) this.onChange(this.region, false);
  }

  #abandon() {
    if (this.drag) this.show(this.drag.region);
    this.drag = undefined;
  }

  #key(event) {
    const grip = event.target.dataset.grip;
    const way = ARROWS[event.key];
    if (!grip || !way || !this.region) return;
    event.preventDefault();
    const step = event.shiftKey ? STEP * 4 : STEP;
    this.show(dragged(this.region, grip, way[0] * step, way[1] * step));
    this.timer = setTimeout(() => this.onChange(this.region, true), SETTLES_MS);
  }
}
