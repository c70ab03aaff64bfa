// A plain layout for levels that dagre would take seconds for: dense blocks, or one value that a hundred ops read.

const GAP = 26;
const STEP = HEIGHT + 40;

/** The row each box stands in: below all that it reads. Edges against the order of execution (loops) do not count. */
function rows(boxes, edges) {
  const time = (place) => ({ from: -1, to: boxes.length })[boxes[place].port] ?? place;
  const order = boxes.map((_, place) => place).sort((a, b) => time(a) - time(b));
  const readers = boxes.map(() => []);
  for (const { from, to } of edges) if (time(from) < time(to)) readers[from].push(to);
  const row = new Array(boxes.length).fill(0);
  for (const place of order) for (const reader of readers[place]) row[reader] = Math.max(row[reader], row[place] + 1);
  return row;
}

/** Rows of boxes under what they read; edges that pass a row run beside all of them, the longer the farther out. */
function arrangeInRows(boxes, edges, row) {
  const sources = boxes.map(() => []);
  for (const { from, to } of edges) if (row[from] < row[to]) sources[to].push(from);
  const lines = [];
  row.forEach((at, place) => (lines[at] ??= []).push(place));
  lines.forEach((line, at) => {
    for (const place of line) {
      const above = sources[place].map((source) => boxes[source].x);
      boxes[place].x = above.length ? above.reduce((sum, x) => sum + x, 0) / above.length : 0;
      boxes[place].y = 16 + HEIGHT / 2 + at * STEP;
    }
    spread(line.map((place) => boxes[place]).sort((a, b) => a.x - b.x));
  });
  const left = Math.min(...boxes.map((box) => box.x - box.width / 2)) - 16;
  for (const box of boxes) box.x -= left;
  const right = Math.max(...boxes.map((box) => box.x + box.width / 2));
  let width = right + 16;
  for (const edge of edges) {
    const [start, end] = [boxes[edge.from], boxes[edge.to]];
    const [from, to] = [{ x: start.x, y: start.y + HEIGHT / 2 }, { x: end.x, y: end.y - HEIGHT / 2 }];
    const far = row[edge.to] - row[edge.from];
    const lane = right + 10 + 12 * Math.sqrt(Math.abs(far) * 4);
    const aside = [{ x: lane, y: from.y + 18 }, { x: lane, y: to.y - 18 }];
    edge.points = far === 1 ? [from, to] : [from, ...aside, to];
    [edge.x, edge.y] = far === 1 ? [(from.x + to.x) / 2, (from.y + to.y) / 2] : [lane, (from.y + to.y) / 2];
    if (far !== 1) width = Math.max(width, lane + edge.room / 2 + 16);
  }
  return { width, height: 32 + HEIGHT + (lines.length - 1) * STEP };
}

/** Moves the boxes of a line apart, about the middle of where they wanted to stand. */
function spread(line) {
  const wanted = line.reduce((sum, box) => sum + box.x, 0) / line.length;
  for (let i = 1; i < line.length; i += 1) {
    const least = line[i - 1].x + (line[i - 1].width + line[i].width) / 2 + GAP;
    line[i].x = Math.max(line[i].x, least);
  }
  const shift = wanted - line.reduce((sum, box) => sum + box.x, 0) / line.length;
  for (const box of line) box.x += shift;
}
