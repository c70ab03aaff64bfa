// Where the boxes of one level stand and how its edges run, top to bottom; nothing is drawn here.

const HEIGHT = 40;
const NARROW = 104;
const WIDE = 220;
const MANY = 250; // boxes, and rows that edges run past, up to which dagre answers at once
const NUMBERS = 120; // edges up to which they carry numbers

/**
 * One level as it is drawn: {width, height, boxes, edges}.
 *
 * A box: {id, port, x, y, width, text}, x and y its middle; port says "from" or "to" of a box outside the level, which
 * stands at both ends if it does both. An edge: {from, to, units, points, label}, from and to positions in `boxes`.
 */
function laidOut(level, known, fonts) {
  const boxes = [];
  const places = new Map();
  const place = (id, port) => {
    const key = JSON.stringify([id, port]);
    if (!places.has(key)) {
      places.set(key, boxes.length);
      boxes.push({ id, port, ...sized(known.get(id), port, fonts) });
    }
    return places.get(key);
  };
  const ports = new Set(level.ports);
  for (const id of level.boxes) place(id, "");
  const edges = level.edges.map(([from, to, units]) => ({
    from: place(from, ports.has(from) ? "from" : ""),
    to: place(to, ports.has(to) ? "to" : ""),
    units,
  }));
  label(edges, boxes, known, fonts);
  const row = rows(boxes, edges);
  const passed = edges.reduce((sum, { from, to }) => sum + Math.abs(row[to] - row[from]), boxes.length);
  const size = passed > MANY ? arrangeInRows(boxes, edges, row) : arrange(boxes, edges);
  return { ...size, boxes, edges };
}

function sized(box, port, fonts) {
  const name = port ? `${port} ${box.label}` : box.label;
  const text = cutMiddle(name, WIDE - 24, fonts.name);
  const second = `${secondLine(box)}   ${inWords(box.into)}`;
  return { text, width: Math.max(NARROW, Math.ceil(Math.max(fonts.name(text), fonts.small(second)) + 24)) };
}

/** Under the name: the op, or how much is in a module. */
function secondLine(box) {
  if (box.opens !== undefined) return box.ops === 1 ? "1 op" : `${box.ops ?? 0} ops`;
  return box.op ? cutMiddle(shortOp(box.op), 110, (text) => 7 * text.length) : box.kind;
}

/** An edge says its number where it is not that of the box it leaves. */
function label(edges, boxes, known, fonts) {
  for (const edge of edges) {
    const text = inWords(edge.units);
    edge.label = edges.length <= NUMBERS && text !== inWords(known.get(boxes[edge.from].id).into) ? text : "";
    edge.room = edge.label ? fonts.small(text) + 8 : 0;
  }
}

function arrange(boxes, edges) {
  const graph = new dagre.graphlib.Graph({ multigraph: true });
  graph.setGraph({ rankdir: "TB", ranksep: 26, nodesep: 26, edgesep: 14, marginx: 16, marginy: 16 });
  graph.setDefaultEdgeLabel(() => ({}));
  boxes.forEach((box, place) => graph.setNode(String(place), { width: box.width, height: HEIGHT }));
  edges.forEach((edge, place) => {
    const room = edge.label ? { width: edge.room, height: 16, labelpos: "c" } : {};
    graph.setEdge(String(edge.from), String(edge.to), { ...room }, String(place));
  });
  dagre.layout(graph);
  boxes.forEach((box, place) => {
    const { x, y } = graph.node(String(place));
    Object.assign(box, { x, y });
  });
  edges.forEach((edge, place) => {
    const { points, x, y } = graph.edge(String(edge.from), String(edge.to), String(place));
    Object.assign(edge, { points, x, y });
  });
  const { width, height } = graph.graph();
  return { width, height };
}
