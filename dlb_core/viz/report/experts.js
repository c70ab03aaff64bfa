// Experts: layers by experts, each cell the units of one expert.

function anyExperts() {
  return data.columns.some((one) => one.books.some((each) => each.some((book) => book.experts?.length)));
}

function expertsSection(body) {
  let redraw = () => {};
  function build() {
    const found = books();
    const { book } = found[Math.min(state.book, found.length - 1)];
    const layers = book.experts ?? [];
    const limit = Math.max(0, ...layers.flatMap((layer) => layer.units.map((units) => Math.abs(units) || 0)));
    const hint = "An expert\u2019s units: under the pointer, or with the arrow keys.";
    const readout = el("p", { class: "readout", "aria-live": "polite" }, hint);
    const cells = [];
    const rows = layers.map((layer) => {
      const total = layer.units.reduce((sum, units) => sum + (Number(units) || 0), 0);
      const own = layer.units.map((units, e) => {
        const of = `${percent(units, total)} of those of all experts`;
        const say = `${shown(layer.name)}, expert ${e}: ${signed(units)} units, ${of}, ${plural(layer.load[e], "token")}`;
        const cell = el("span", { class: "cell", role: "img", "aria-label": say });
        cells.push({ cell, units, say });
        return cell;
      });
      const top = layer.units.map((units, e) => [units, e]).sort((a, b) => Math.abs(b[0]) - Math.abs(a[0]))[0];
      const best = top ? `${top[1]}: ${percent(top[0], total)}` : "";
      return el(
        "tr",
        {},
        el("th", { scope: "row" }, named(layer.name)),
        el("td", { class: "wide" }, el("div", { class: "cells" }, own)),
        el("td", { class: "number" }, signed(total)),
        el("td", { class: "number quiet" }, best),
      );
    });
    const tell = (i) => {
      readout.textContent = cells[i].say;
      showTip(cells[i].cell, cells[i].say);
    };
    cells.forEach(({ cell }, i) => {
      cell.addEventListener("pointerenter", () => tell(i));
      cell.addEventListener("pointerleave", hideTip);
      cell.addEventListener("blur", hideTip);
    });
    if (cells.length) roving(cells.map(({ cell }) => cell), tell);
    const scale = el("div");
    redraw = () => {
      cells.forEach(({ cell, units }) => paint(cell, units, limit));
      scale.replaceChildren(legend(limit));
    };
    redraw();
    const headings = ["layer", "experts, from 0", { text: "units", number: true }, { text: "strongest", number: true }];
    const none = book.experts ? "No relevance came to experts here." : LEFT_OUT;
    const content = layers.length
      ? [el("div", { class: "scroll" }, table(headings, rows, { class: "bars experts" })), scale, readout]
      : [el("p", { class: "quiet" }, none)];
    body.replaceChildren(...[bookPicker("Experts"), ...content].filter(Boolean));
  }
  build();
  watch((name) => {
    if (name === "target" || name === "book") build();
    if (name === "dark") redraw();
  });
}
