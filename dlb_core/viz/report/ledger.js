// The ledger: a waterfall from the seed over inputs and sinks to what is left.

function ledgerSection(body) {
  function build() {
    const found = books();
    body.replaceChildren(el("div", { class: "columns" }, found.map(({ book, name }) => waterfall(book, name, found.length > 1))));
  }
  build();
  watch((name) => {
    if (name === "target") build();
  });
}

// A share as it is read; none where the signs of the seed cancel.
function portion(share) {
  return share === "-" ? "\u2013" : minus(share);
}

function waterfall(book, name, several) {
  const real = (units) => (typeof units === "number" ? units : 0);
  let left = real(book.seed);
  const steps = book.lines.map((line) => {
    const from = left;
    left -= real(line.units);
    return { ...line, from, to: left };
  });
  const ends = [0, real(book.seed), ...steps.map((each) => each.to)];
  const axis = [Math.min(...ends), Math.max(...ends)];
  const texts = column([book.seed, ...book.lines.map((line) => line.units)]);
  const row = (label, bar, units, part, kind) =>
    el(
      "tr",
      { class: kind },
      el("th", { scope: "row" }, label),
      el("td", { class: "wide" }, bar),
      el("td", { class: "number" }, units),
      el("td", { class: "number quiet" }, part),
    );
  const rows = [
    row("seed", floating(0, real(book.seed), axis, "seed"), texts[0], portion(book.whole), "total"),
    ...steps.map((each, i) =>
      row(named(each.account), floating(each.from, each.to, axis, each.kind), texts[i + 1], portion(each.share), each.kind),
    ),
  ];
  const headings = ["account", "", { text: "units", number: true }, { text: "share", number: true }];
  const gain = typeof book.gain === "number" && book.gain > 1.005
    ? `Without its signs, the relevance of the inputs adds up to ${number(book.gain, 3)} times the seed\u2019s.`
    : null;
  return el("div", {}, several || book.side ? el("h3", {}, shown(name)) : null, table(headings, rows, { class: "bars ledger" }), gain ? el("p", { class: "quiet" }, gain) : null);
}
