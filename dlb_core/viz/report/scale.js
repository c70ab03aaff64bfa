// The one colour scale: blue below zero, the paper at zero, red above. On dark paper the ends are bright.

const DARK_STOPS = [
  [166, 206, 255],
  [46, 112, 196],
  [22, 25, 31],
  [196, 72, 58],
  [255, 178, 158],
];
const STEPS = 512;

function colourTable(stops) {
  const found = new Uint8Array(3 * (STEPS + 1));
  for (let i = 0; i <= STEPS; i++) {
    const place = (i / STEPS) * (stops.length - 1);
    const below = Math.min(stops.length - 2, Math.floor(place));
    for (let c = 0; c < 3; c++) {
      found[3 * i + c] = Math.round(stops[below][c] + (place - below) * (stops[below + 1][c] - stops[below][c]));
    }
  }
  return found;
}

const TABLES = {};

function colours() {
  const theme = state.dark ? "dark" : "light";
  TABLES[theme] ??= colourTable(state.dark ? DARK_STOPS : data.stops);
  return TABLES[theme];
}

function step(value, limit) {
  const share = limit > 0 && Number.isFinite(value) ? Math.max(-1, Math.min(1, value / limit)) : 0;
  return 3 * Math.round(((share + 1) / 2) * STEPS);
}

// Background and ink of a value, with enough contrast between them.
function paint(element, value, limit) {
  const found = colours();
  const [r, g, b] = found.subarray(step(value, limit), step(value, limit) + 3);
  const linear = [r, g, b].map((c) => (c <= 10 ? c / 3295 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  const luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  element.style.setProperty("background-color", `rgb(${r}, ${g}, ${b})`);
  element.style.setProperty("color", luminance > 0.179 ? "#10131a" : "#ffffff");
}

// Values, row by row, as the pixels of a canvas.
function heat(canvas, values, width, height, limit) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const found = colours();
  for (let i = 0; i < width * height; i++) {
    const from = step(values[i], limit);
    image.data[4 * i] = found[from];
    image.data[4 * i + 1] = found[from + 1];
    image.data[4 * i + 2] = found[from + 2];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// What the colours mean, in units.
function legend(limit) {
  const bar = el("canvas", { class: "colour-scale", "aria-hidden": "true" });
  const line = Float32Array.from({ length: 129 }, (_, i) => i / 64 - 1);
  const draw = () => heat(bar, line, line.length, 1, 1);
  draw();
  return el(
    "div",
    { class: "legend" },
    el("span", {}, signed(-limit, 3)),
    el("span", { class: "colour-box" }, bar, el("span", { class: "zero" }, "0")),
    el("span", {}, signed(limit, 3)),
  );
}
