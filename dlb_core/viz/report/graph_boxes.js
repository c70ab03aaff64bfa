// One level as SVG: boxes coloured by relevance, edges as wide as what flows along them.

/** The drawing of a level, from `laidOut`: {svg, moved, groups, trace}; `moved` is what pans and zooms. */
function drawn(layout, known, whole, title) {
  const edges = shape("g", { class: "edges", "aria-hidden": "true" });
  const lines = layout.edges.map((edge) => shape("g", { class: "flow" }, ...edgeShapes(edge, whole)));
  edges.append(...lines);
  const boxes = shape("g", { class: "boxes" });
  const reading = [...layout.boxes].sort((a, b) => a.y - b.y || a.x - b.x);
  const tabbed = reading.length <= 200; // above that the arrow keys lead from box to box
  const groups = reading.map((box, place) => {
    const group = boxShape(box, known.get(box.id), whole);
    group.setAttribute("tabindex", tabbed || place === 0 ? "0" : "-1");
    boxes.append(group);
    return { group, box };
  });
  const moved = shape("g", {}, edges, boxes);
  const svg = shape("svg", { class: "picture", tabindex: "0", role: "group", "aria-label": title }, moved);

  /** Dims the edges that do not touch a box; without one, none. */
  function trace(box) {
    const place = layout.boxes.indexOf(box);
    layout.edges.forEach(({ from, to }, i) => {
      lines[i].classList.toggle("dim", place !== -1 && from !== place && to !== place);
    });
  }
  return { svg, moved, groups, trace };
}

function boxShape(box, about, whole) {
  const port = box.port !== "";
  const name = port ? `${box.port} ${about.path || about.label}` : about.label;
  const share = shareInWords(about.into, whole);
  const action = port ? "Enter goes there" : about.opens !== undefined ? "Enter opens it" : "Enter shows it";
  const spoken = `${name}, ${about.op ? shortOp(about.op) : about.kind}, relevance ${inWords(about.into)}, ${action}`;
  const group = shape("g", {
    class: `box ${port ? "port" : about.kind}`,
    role: "button",
    "aria-label": spoken,
    transform: `translate(${box.x - box.width / 2} ${box.y - HEIGHT / 2})`,
  });
  group.append(shape("title", {}, `${name}\n${inWords(about.into)} units${share && ` (${share} of the seed)`}`));
  const rounding = { op: 4, module: 4, input: 20, output: 20 }[about.kind] ?? 4;
  const frame = { width: box.width, height: HEIGHT, rx: rounding };
  if (about.opens !== undefined && !port) group.append(shape("rect", { class: "behind", x: 4, y: 4, ...frame }));
  const rect = shape("rect", { class: "face", ...frame });
  const middle = box.width / 2;
  group.append(rect, shape("text", { class: "name", x: middle, y: 16 }, box.text));
  if (port) {
    group.append(shape("text", { class: "small", x: middle, y: 32 }, inWords(about.into)));
  } else {
    group.append(
      shape("text", { class: "small start", x: 12, y: 32 }, secondLine(about)),
      shape("text", { class: "small end", x: box.width - 12, y: 32 }, inWords(about.into)),
    );
    tint(group, about.into, whole);
  }
  return group;
}

/** Colours a group by share of the seed; beyond the whole seed no darker. `deep` where dark ink would not be read. */
function tint(group, units, whole) {
  const share = units === null || !whole ? 0 : Math.max(-1, Math.min(1, units / Math.abs(whole)));
  const [low, high] = share < 0 ? [1, 0] : [3, 4];
  const size = 2 * Math.abs(share);
  const [from, to, part] = size <= 1 ? [2, low, size] : [low, high, size - 1];
  const colour = `color-mix(in srgb, var(--stop-${to}) ${(100 * part).toFixed(1)}%, var(--stop-${from}))`;
  group.style.setProperty("--tint", colour);
  group.classList.toggle("deep", share < DEEP.below || share > DEEP.above);
}

/** Where white ink begins to be read better than black (on dark paper the reverse): see the stops in graph.css. */
const DEEP = { below: -0.562, above: 0.614 };

function edgeShapes(edge, whole) {
  const share = edge.units === null || !whole ? 0 : Math.min(1, Math.abs(edge.units / whole));
  const width = 1 + 4 * Math.sqrt(share);
  const sign = edge.units > 0 ? "plus" : edge.units < 0 ? "minus" : "none";
  const points = edge.points;
  const tip = points[points.length - 1];
  const before = points[points.length - 2];
  const [dx, dy] = [tip.x - before.x, tip.y - before.y];
  const length = Math.hypot(dx, dy) || 1;
  const [ux, uy] = [dx / length, dy / length];
  const size = 5 + width;
  const neck = { x: tip.x - ux * size, y: tip.y - uy * size };
  const [sx, sy] = [uy * size * 0.45, ux * size * 0.45];
  const head = `M${tip.x} ${tip.y}L${neck.x - sx} ${neck.y + sy}L${neck.x + sx} ${neck.y - sy}Z`;
  const way = curve([...points.slice(0, -1), neck]);
  const line = shape("path", { class: `edge ${sign}`, d: way, "stroke-width": width });
  line.append(shape("title", {}, `${inWords(edge.units)} units`));
  const made = [line, shape("path", { class: `head ${sign}`, d: head })];
  if (edge.label) made.push(shape("text", { class: "amount", x: edge.x, y: edge.y + 4 }, edge.label));
  return made;
}

/** A smooth line through the middles between the points, from the first to the last. */
function curve(points) {
  let path = `M${points[0].x} ${points[0].y}`;
  for (let i = 1; i < points.length - 1; i += 1) {
    const [here, next] = [points[i], points[i + 1]];
    path += `Q${here.x} ${here.y} ${(here.x + next.x) / 2} ${(here.y + next.y) / 2}`;
  }
  const last = points[points.length - 1];
  return `${path}L${last.x} ${last.y}`;
}
