// A grid of numbers as colours over a picture.

// Inferno (S. van der Walt, N. Smith, CC0): its lightness alone tells the order, to any eye.
const ADDS = [
  [0, [0, 0, 4, 0.62]],
  [0.25, [87, 16, 110, 0.6]],
  [0.5, [188, 55, 84, 0.62]],
  [0.75, [249, 142, 9, 0.7]],
  [1, [252, 255, 164, 0.8]],
];
const AGAINST = [
  [0, [0, 0, 4, 0.62]],
  [1, [86, 180, 233, 0.85]],
];
const CELL = 24; // pixels of canvas for a cell

/** Red, green, blue 0…255 and opacity 0…1 of a value in -1…1. */
export function colour(value) {
  const stops = value < 0 ? AGAINST : ADDS;
  const at = Math.min(Math.abs(value), 1);
  const above = Math.max(stops.findIndex(([stop]) => stop >= at), 1);
  const [[low, from], [high, to]] = [stops[above - 1], stops[above]];
  const share = (at - low) / (high - low);
  return from.map((channel, index) => channel + (to[index] - channel) * share);
}

/** Draw a grid, rows from top to bottom, its greatest size as the brightest colour. */
export function paint(canvas, grid) {
  const [rows, columns] = [grid.length, grid[0].length];
  const most = Math.max(...grid.flat().map(Math.abs)) || 1;
  const pixels = new ImageData(columns, rows);
  grid.flat().forEach((value, at) => {
    const [red, green, blue, opacity] = colour(value / most);
    pixels.data.set([red, green, blue, opacity * 255], at * 4);
  });
  const small = new OffscreenCanvas(columns, rows);
  small.getContext("2d").putImageData(pixels, 0, 0);
  Object.assign(canvas, { width: columns * CELL, height: rows * CELL });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

/** Where the most comes from, in words. */
export function described(grid) {
  const most = Math.max(...grid.flat());
  const row = grid.findIndex((values) => values.includes(most));
  const third = (at, count) => Math.min(Math.floor(((at + 0.5) / count) * 3), 2);
  const down = ["upper", "middle", "lower"][third(row, grid.length)];
  const across = ["left", "middle", "right"][third(grid[row].indexOf(most), grid[0].length)];
  const where = down === across ? "middle" : `${down} ${across}`;
  return `Heatmap: the most comes from the ${where}`;
}
