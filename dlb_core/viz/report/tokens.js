// Text: every token on the colour of its relevance, its number below or one key away.

function tokenText(label) {
  return shown(label).replace(/\n/g, "\u23ce\n").replace(/\t/g, "\u21e5") || "\u2205";
}

// Tokens in a row; say(index): what the tip tells. Returns the element, the tokens, and how to colour them.
function tokenRow(labels, say, name) {
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  const items = labels.map((label) =>
    el("span", { class: "token", role: "listitem" }, named(tokenText(label), { class: "word" }), el("span", { class: "under" })),
  );
  const tell = (index) => {
    readout.textContent = say(index);
    showTip(items[index], say(index));
  };
  items.forEach((item, index) => {
    item.addEventListener("pointerenter", () => tell(index));
    item.addEventListener("pointerleave", hideTip);
    item.addEventListener("blur", hideTip);
  });
  if (items.length) roving(items, tell);
  const list = el("div", { class: "token-list", role: "list", "aria-label": name }, items);
  return { list, items, readout };
}

function colourTokens(items, units, limit, say) {
  items.forEach((item, index) => {
    paint(item, units[index], limit);
    item.lastChild.textContent = signed(units[index], 3);
    item.setAttribute("aria-label", say(index));
  });
}

function tokensView(view, settings, of) {
  const units = unpacked(view.units);
  const say = (i) =>
    [`${tokenText(view.labels[i]).trim()} (token ${i})`, `${signed(units[i])} units`, share(units[i], of)]
      .filter(Boolean)
      .join(" \u00b7 ");
  const row = tokenRow(view.labels, say, `Tokens of ${shown(view.name)}`);
  const scale = el("div");
  settings.numbers ??= view.labels.length <= 64;
  function draw() {
    row.list.classList.toggle("bare", !settings.numbers);
    colourTokens(row.items, units, view.limits[0], say);
    scale.replaceChildren(legend(view.limits[0]));
  }
  row.readout.textContent = "Point at a token, or use the arrow keys, to read its units.";
  draw();
  const rest = view.rest.count
    ? el("p", { class: "quiet" }, `${view.rest.count} more tokens with ${signed(view.rest.units)} units`)
    : null;
  const element = el("div", { class: "text" }, row.list, rest, scale, row.readout, strongest(view.labels, units, of));
  return { element, draw };
}

function tokenControls(view, settings, changed) {
  settings.numbers ??= view.labels.length <= 64;
  const box = el("input", {
    type: "checkbox", checked: settings.numbers,
    on: {
      change: (event) => {
        settings.numbers = event.target.checked;
        changed();
      },
    },
  });
  return el("div", { class: "controls" }, el("label", {}, box, el("span", {}, "Numbers below the tokens")));
}

// The tokens with the most units, as a table.
function strongest(labels, units, of, most = 8) {
  const order = [...units.keys()].sort((a, b) => Math.abs(units[b]) - Math.abs(units[a])).slice(0, most);
  const kept = order.filter((i) => units[i] !== 0);
  if (!kept.length) return null;
  const bar = gauges(kept.map((i) => units[i]));
  const texts = column(kept.map((i) => units[i]), true);
  const rows = kept.map((i, n) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, named(tokenText(labels[i]).trim())),
      el("td", { class: "number quiet" }, i),
      el("td", { class: "wide" }, bar(units[i])),
      el("td", { class: "number" }, texts[n]),
      shareCell(units[i], of),
    ),
  );
  const headings = ["strongest tokens", { text: "place", number: true }, "", { text: "units", number: true }, ...shareHead()];
  return table(headings, rows, { class: "bars" });
}
