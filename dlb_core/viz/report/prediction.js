// What the model said, what of it was explained, and how.

function predictionSection(body) {
  function build() {
    const several = data.predictions.length > 1;
    const found = data.predictions.map((each, i) => prediction(each[state.target], several ? data.columns[i].mode : ""));
    body.replaceChildren(el("div", { class: "facts" }, found, how()));
  }
  build();
  watch((name) => {
    if (name === "sample" || name === "target") build();
  });
}

function prediction(one, mode) {
  const title = el("h3", {}, "Output", el("span", { class: "quiet" }, ` [${one.shape.join(", ")}]${mode ? `, mode ${shown(mode)}` : ""}`));
  if (!one.classes.length) return el("div", {}, title, numbersOf(one));
  const classes = one.classes[state.sample];
  const explained = data.columns[0].targets[state.target][state.sample] ?? {};
  const outputs = column(classes.map((each) => each.output), true);
  const rows = classes.map((each, i) => {
    const mine = each.class === explained.class;
    return el(
      "tr",
      { class: mine ? "explained" : null },
      el("th", { scope: "row" }, named(each.name), " ", mine ? el("span", { class: "chip" }, "explained") : null),
      el("td", { class: "wide" }, filled(each.probability, mine ? "target" : "plain")),
      el("td", { class: "number" }, percent(each.probability, 1)),
      el("td", { class: "number quiet" }, outputs[i]),
    );
  });
  const headings = ["class", "", { text: "probability", number: true }, { text: "output", number: true }];
  return el("div", {}, title, table(headings, rows, { class: "bars" }));
}

function numbersOf(one) {
  const values = one.values ? [["value", (one.values[state.sample] ?? one.values[0]).map((v) => number(v, 5)).join(", ")]] : [];
  const pairs = [...values, ...Object.entries(one.numbers).map(([name, value]) => [name, number(value, 5)])];
  return list(pairs);
}

function list(pairs) {
  return el("dl", {}, pairs.map(([name, value]) => [el("dt", {}, shown(name)), el("dd", {}, named(value))]));
}

// Mode, target and options; one column for each mode.
function how() {
  const names = [...new Set(data.columns.flatMap((one) => one.options.map(([name]) => name)))];
  const rows = [["mode", (one) => one.mode]];
  if (data.kind === "explanation") rows.push(["explained", (one) => one.targets[state.target][state.sample]?.name ?? ""]);
  if (data.kind === "generation") {
    rows.push(["prompt", () => plural(data.generation.prompt, "token")]);
    rows.push(["explained", () => plural(data.generation.steps.length, "written token")]);
  }
  rows.push(["units to explain", (one) => number(one.books[state.target][0].seed, 5)]);
  for (const name of names) rows.push([name, (one) => one.options.find(([each]) => each === name)?.[1] ?? ""]);
  const body = rows.map(([name, read]) =>
    el("tr", {}, el("th", { scope: "row" }, shown(name)), data.columns.map((one) => el("td", {}, named(read(one))))),
  );
  const notes = data.notes.map((note) => el("li", {}, note));
  return el(
    "div",
    {},
    data.kind === "explanation" ? el("h3", {}, "How") : null,
    el("table", { class: "plain" }, el("tbody", {}, body)),
    notes.length ? el("ul", { class: "notes" }, notes) : null,
  );
}
