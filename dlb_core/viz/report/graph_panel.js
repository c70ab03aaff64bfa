// The side panel: what is known of the box that was chosen, with the numbers of the ledger.

const KINDS = { op: "Op", module: "Module", group: "Group of ops", input: "Input", output: "Output" };

/** Fills the panel with one box; `flows` are [word, box id, units] of the level, `go` follows one, `open` opens it. */
function showDetails(panel, id, about, { whole, flows, go, open, name }) {
  const rows = [];
  const row = (word, value, kind = "") => {
    if (value !== "" && value !== undefined) rows.push(element("dt", {}, word), element("dd", { class: kind }, value));
  };
  const units = (word, value) => row(word, withShare(value, whole), "amount");
  if (about.kind === "op") {
    row("Node", breakable(id), "code");
    row("Op", breakable(about.op ?? ""), "code");
    row("Rule", about.rule ?? "");
    row("Pack", about.pack ?? "");
    row("Module", breakable(about.path || "(top of the model)"), "code");
    row("Shape", about.shape || "scalar");
  } else {
    if (about.kind === "module") row("Path", breakable(about.path), "code");
    row("Ops", about.ops === undefined ? "" : String(about.ops));
    row("Shape", about.shape ?? "");
  }
  if (about.kind !== "output") units("Relevance in", about.into);
  if (about.kind !== "input") units("Relevance out", about.out);
  if (about.kind !== "input" && about.kind !== "output") {
    units("Booked", about.booked);
    units("Residual", about.residual);
  }
  const parts = [
    element("p", { class: "what" }, KINDS[about.kind] ?? about.kind),
    element("h3", { title: about.label }, breakable(about.label)),
    element("dl", {}, ...rows),
  ];
  if (open) parts.push(button("Open", "open", open));
  parts.push(...accounts(about, whole), ...flowList(flows, { go, name }), ...foldedOps(about));
  panel.replaceChildren(...parts);
  panel.scrollTop = 0;
}

function withShare(units, whole) {
  const text = document.createDocumentFragment();
  text.append(inWords(units));
  const share = shareInWords(units, whole);
  if (share) text.append(element("span", { class: "share" }, ` ${share}`));
  return text;
}

function accounts(about, whole) {
  const booked = Object.entries(about.accounts ?? {}).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  if (!booked.length) return [];
  const rows = booked.map(([name, units]) =>
    element("tr", {}, element("th", { scope: "row" }, breakable(name)), element("td", {}, withShare(units, whole))));
  return [element("h4", {}, "Booked by account"), element("table", {}, element("tbody", {}, ...rows))];
}

function flowList(flows, { go, name }) {
  if (!flows.length) return [];
  const rows = flows.map(([word, id, units]) =>
    element("tr", {}, element("th", { scope: "row" }, `${word} `, button(name(id), "flow-end", () => go(id))),
      element("td", {}, inWords(units))));
  return [element("h4", {}, "Flow"), element("table", {}, element("tbody", {}, ...rows))];
}

function foldedOps(about) {
  if (!about.folded) return [];
  const names = about.folded.map((name) => element("li", {}, breakable(name)));
  return [element("h4", {}, "Layout ops folded into the edges"), element("ul", {}, ...names)];
}

function button(text, kind, act, attributes = {}) {
  const made = element("button", { type: "button", class: kind, ...attributes }, text);
  made.addEventListener("click", act);
  return made;
}
