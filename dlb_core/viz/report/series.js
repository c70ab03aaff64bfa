// Series: a strip for each channel, its values as a line on the colours of their relevance.

const HINT = "Point at a strip, or use the arrow keys, to read its units.";
const LINE_WIDTH = 600;
const LINE_HEIGHT = 44;

function seriesView(view, settings, of) {
  const [count, steps] = view.units.shape;
  const units = unpacked(view.units);
  const values = view.values ? unpacked(view.values) : null;
  const readout = el("p", { class: "readout", "aria-live": "polite" }, HINT);
  const scale = el("div");
  const rows = view.labels.map((label, row) => strip(label, row));
  const totals = column(rows.map((each) => each.total), true);
  rows.forEach((each, i) => (each.number.textContent = totals[i]));

  function strip(label, row) {
    const own = units.subarray(row * steps, (row + 1) * steps);
    const line = values && row < view.values.shape[0] ? values.subarray(row * steps, (row + 1) * steps) : null;
    const total = own.reduce((sum, each) => sum + each, 0);
    const canvas = el("canvas", { class: "heat", "aria-hidden": "true" });
    const cursor = el("span", { class: "cursor", hidden: true });
    const box = el(
      "div",
      { class: "strip", tabindex: 0, role: "img", "aria-label": `${shown(label)}: arrow keys read single steps` },
      canvas,
      line ? curve(line) : null,
      cursor,
    );
    let at = null;
    const read = () => {
      cursor.hidden = at === null;
      if (at === null) {
        readout.textContent = HINT;
        return;
      }
      cursor.style.setProperty("left", `${(100 * at) / steps}%`);
      cursor.style.setProperty("width", `max(2px, ${100 / steps}%)`);
      const last = Math.min(view.steps, (at + 1) * view.block) - 1;
      const when = view.block > 1 ? `steps ${at * view.block}\u2013${last}` : `step ${at}`;
      const value = line ? `value ${number(line[at])}` : "";
      readout.textContent = [shown(label), when, value, `${signed(own[at])} units`, share(own[at], of)]
        .filter(Boolean)
        .join(" \u00b7 ");
    };
    const go = (to) => {
      at = to === null ? null : Math.max(0, Math.min(steps - 1, to));
      read();
    };
    box.addEventListener("pointermove", (event) => {
      const place = box.getBoundingClientRect();
      go(Math.floor(((event.clientX - place.left) / place.width) * steps));
    });
    box.addEventListener("pointerleave", () => go(null));
    box.addEventListener("blur", () => go(null));
    box.addEventListener("keydown", (event) => {
      const far = event.shiftKey ? 10 : 1;
      const goes = { ArrowLeft: (at ?? 1) - far, ArrowRight: (at ?? -1) + far, Home: 0, End: steps - 1, Escape: null };
      if (!(event.key in goes)) return;
      event.preventDefault();
      go(goes[event.key]);
    });
    const amount = el("span", { class: "number" });
    const element = el("div", { class: "series-row" }, named(label, { class: "series-name" }), box, amount);
    return { element, number: amount, total, draw: () => heat(canvas, own, steps, 1, view.limits[0]) };
  }
  function draw() {
    for (const each of rows) each.draw();
    scale.replaceChildren(legend(view.limits[0]));
  }
  draw();
  const element = el("div", { class: "series" }, rows.map((each) => each.element), scale, readout);
  return { element, draw };
}

// The values as a line, from their smallest at the bottom to their largest at the top.
function curve(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const y = (value) => 4 + (LINE_HEIGHT - 8) * (high > low ? (high - value) / (high - low) : 0.5);
  const points = Array.from(values, (value, i) => `${(((i + 0.5) / values.length) * LINE_WIDTH).toFixed(1)},${y(value).toFixed(1)}`);
  const made = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const svg = made("svg", { viewBox: `0 0 ${LINE_WIDTH} ${LINE_HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(made("polyline", { points: points.join(" "), class: "halo" }), made("polyline", { points: points.join(" "), class: "curve" }));
  return svg;
}
