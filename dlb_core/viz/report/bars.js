// Bars: lengths beside numbers, never instead of them.

// From a middle line to the left (below zero) or right.
function diverging(value, limit) {
  const share = limit > 0 && typeof value === "number" ? Math.min(1, Math.abs(value) / limit) : 0;
  const side = value < 0 ? "below" : "above";
  const fill = el("span", { class: `fill ${side}`, style: { width: `${50 * share}%` } });
  return el("span", { class: "gauge middle", "aria-hidden": "true" }, fill);
}

// From the left, 0 to 1.
function filled(portion, kind = "plain") {
  const width = `${100 * Math.max(0, Math.min(1, portion || 0))}%`;
  return el("span", { class: "gauge", "aria-hidden": "true" }, el("span", { class: `fill ${kind}`, style: { width } }));
}

// How to draw a column of values: from the middle where some are below zero, else from the left.
function gauges(values) {
  const numbers = values.filter((value) => typeof value === "number");
  const limit = Math.max(0, ...numbers.map(Math.abs));
  return numbers.some((value) => value < 0) ? (value) => diverging(value, limit) : (value) => filled(value / limit, "plus");
}

// From one place to another between the ends of an axis.
function floating(from, to, [low, high], kind) {
  const place = (value) => (high > low ? (100 * (value - low)) / (high - low) : 0);
  const [left, right] = [Math.min(from, to), Math.max(from, to)].map(place);
  const style = { left: `${left}%`, width: `max(2px, ${right - left}%)` };
  return el("span", { class: "gauge", "aria-hidden": "true" }, el("span", { class: `fill ${kind}`, style }));
}
