// Layers: what entered each module and what was booked in it, as a tree that opens and closes.

const NOTHING = 'Nothing was recorded by node: explain with check="raise" or check="warn" to see its layers.';
const ROOM = 40; // rows that are open at first

function layersSection(body) {
  const open = {};
  function build() {
    const found = books();
    const { book, column: of } = found[Math.min(state.book, found.length - 1)];
    const why = book.layers ? NOTHING : LEFT_OUT;
    const content = book.layers?.length ? tree(book, of, open) : el("p", { class: "quiet" }, why);
    body.replaceChildren(...[bookPicker("Layers"), content].filter(Boolean));
  }
  build();
  watch((name) => {
    if (name === "target" || name === "book") build();
  });
}

function firstDepth(rows) {
  let depth = 0;
  while (depth < 9 && rows.filter((row) => row.depth <= depth + 1).length <= ROOM) depth += 1;
  return depth;
}

function tree(book, of, open) {
  const rows = book.layers;
  const bars = { in: gauges(rows.map((row) => row.in)), booked: gauges(rows.map((row) => row.booked)) };
  const texts = { in: column(rows.map((row) => row.in)), booked: column(rows.map((row) => row.booked)) };
  const first = firstDepth(rows);
  const holds = (i) => i + 1 < rows.length && rows[i + 1].depth > rows[i].depth;
  const isOpen = (i) => open[rows[i].path] ?? rows[i].depth < first;
  const buttons = new Map();
  const lines = rows.map((row, i) => {
    const name = named(row.name, { title: shown(row.path) });
    const label = `Parts of ${shown(row.path)}`;
    const toggle = holds(i)
      ? el("button", { class: "fold", type: "button", "aria-label": label, on: { click: () => flip(i) } })
      : el("span", { class: "fold" });
    if (holds(i)) buttons.set(i, toggle);
    return el(
      "tr",
      {},
      el("th", { scope: "row", style: { "padding-left": `calc(${row.depth} * var(--step))` } }, toggle, name),
      el("td", { class: "wide" }, bars.in(row.in)),
      el("td", { class: "number" }, texts.in[i]),
      el("td", { class: "wide" }, bars.booked(row.booked)),
      el("td", { class: "number" }, texts.booked[i]),
    );
  });
  function flip(i) {
    open[rows[i].path] = !isOpen(i);
    fold();
  }
  function fold() {
    let hidden = Infinity; // the depth of the closed module around
    rows.forEach((row, i) => {
      if (row.depth <= hidden) hidden = Infinity;
      lines[i].hidden = hidden < Infinity;
      if (hidden === Infinity && holds(i) && !isOpen(i)) hidden = row.depth;
      buttons.get(i)?.setAttribute("aria-expanded", String(isOpen(i)));
    });
  }
  const all = (value) => () => {
    rows.forEach((row) => (open[row.path] = value));
    fold();
  };
  fold();
  const headings = ["module", "", { text: "units in", number: true }, "", { text: "booked", number: true }];
  const tools = buttons.size
    ? el(
        "div",
        { class: "controls" },
        el("button", { type: "button", on: { click: all(true) } }, "Open all"),
        el("button", { type: "button", on: { click: all(false) } }, "Close all"),
      )
    : null;
  return el("div", {}, tools, el("div", { class: "scroll" }, table(headings, lines, { class: "bars layers" })));
}
