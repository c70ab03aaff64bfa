// A table of features (or of anything without a shape of its own): value, bar, units.

function featuresView(view, settings, of) {
  const body = el("tbody");
  const texts = column(view.rows.map((row) => row.units), true);
  const bar = gauges(view.rows.map((row) => row.units));
  const made = view.rows.map((row, i) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, named(row.label)),
      el("td", { class: "number" }, number(row.value)),
      el("td", { class: "wide" }, bar(row.units)),
      el("td", { class: "number" }, texts[i]),
      shareCell(row.units, of),
    ),
  );
  const rest = view.rest.count
    ? el(
        "tr",
        { class: "quiet" },
        el("td", { colspan: 3 }, `${view.rest.count} more`),
        el("td", { class: "number" }, signed(view.rest.units)),
      )
    : null;
  const total = el(
    "tr",
    { class: "total" },
    el("th", { scope: "row" }, "total"),
    el("td"),
    el("td"),
    el("td", { class: "number" }, signed(view.total)),
    shareCell(view.total, of),
  );
  function draw() {
    const order = [...made.keys()];
    if (settings.sorted ?? true) order.sort((a, b) => Math.abs(view.rows[b].units) - Math.abs(view.rows[a].units));
    body.replaceChildren(...order.map((i) => made[i]), ...[rest, total].filter(Boolean));
  }
  draw();
  const headings = ["feature", { text: "value", number: true }, "", { text: "units", number: true }, ...shareHead()];
  const shownTable = table(headings, [], { class: "bars" });
  shownTable.replaceChild(body, shownTable.tBodies[0]);
  return { element: el("div", { class: "scroll" }, shownTable), draw };
}

function featureControls(view, settings, changed) {
  const options = ["by size", "as given"].map((text, i) =>
    el("option", { value: i, selected: (settings.sorted ?? true) === (i === 0) }, text),
  );
  const choose = el("select", {
    on: {
      change: (event) => {
        settings.sorted = event.target.value === "0";
        changed();
      },
    },
  }, options);
  return el("div", { class: "controls" }, el("label", {}, el("span", {}, "Order"), choose));
}
