// A generation: choose a written token, and what it came from takes its colours.

function generationSection(body) {
  const { prompt, steps } = data.generation;
  let redraw = () => {};
  function build() {
    const sequence = data.generation.sequences[state.sample];
    const drawn = [sequence.sources, sequence.maps].filter((panes) => panes.length).map((panes) => {
      return { panes, source: panes === sequence.sources, arrays: panes.map((pane) => unpacked(pane.units)) };
    });
    const groups = drawn.map(({ panes, source, arrays }) => panes.map((pane, p) => {
      const positions = Array.from({ length: pane.units.shape[1] }, (_, i) => String(i));
      const labels = source ? (sequence.source ?? positions) : sequence.tokens;
      const title = [source ? "The encoder\u2019s text" : "Prompt and continuation", pane.side].filter(Boolean).join(", ");
      return part(sequence, labels, source, title, pane, arrays[p], arrays);
    }));
    const beside = (parts) => el("div", { class: parts.length > 1 ? "input maps" : "input maps one" }, parts.map((each) => each.element));
    body.replaceChildren(...groups.map(beside));
    redraw = () => groups.flat().forEach((each) => each.draw());
    redraw();
  }

  // `together`: the maps beside this one, which have the same scale of colours.
  function part(sequence, labels, source, title, pane, all, together) {
    const width = pane.units.shape[1];
    const row = () => all.subarray(state.target * width, (state.target + 1) * width);
    const token = () => tokenText(sequence.tokens[prompt + steps[state.target]]).trim();
    const say = (i) => {
      const place = source ? `token ${i}` : i < prompt ? `prompt, token ${i}` : `written, step ${i - prompt}`;
      const where = `${tokenText(labels[i]).trim()} (${place})`;
      const chosenBy = !source && i >= prompt && sequence.scores ? ` \u00b7 log-probability ${number(sequence.scores[i - prompt])}` : "";
      return `${where} \u00b7 ${signed(row()[i])} units to ${token()}${chosenBy}`;
    };
    const texts = tokenRow(labels, say, title);
    const most = (units) => units.reduce((largest, each) => Math.max(largest, Math.abs(each)), 0);
    const limit = () => Math.max(...together.map((units) => most(units.subarray(state.target * width, (state.target + 1) * width))));
    if (!source) {
      texts.items.forEach((item, i) => {
        const step = steps.indexOf(i - prompt);
        item.classList.toggle("written", i >= prompt);
        item.classList.toggle("padding", i >= prompt && !sequence.generated[i - prompt]);
        if (step < 0) return;
        item.classList.add("choosable");
        const choose = () => change("target", step);
        item.addEventListener("click", choose);
        item.addEventListener("keydown", (event) => {
          if (event.key !== "Enter" && event.key !== " ") return;
          event.preventDefault();
          choose();
        });
      });
    }
    const scale = el("div");
    const heading = el("p", { class: "quiet" });
    const overview = matrix(pane, all, Math.max(...together.map(most)), sequence, labels, source);
    function draw() {
      heading.textContent = `What ${token()} (step ${steps[state.target]}) came from`;
      colourTokens(texts.items, row(), limit(), say);
      texts.items.forEach((item, i) => {
        const is = !source && i === prompt + steps[state.target];
        item.classList.toggle("chosen", is);
        if (item.classList.contains("choosable")) item.setAttribute("aria-current", String(is));
      });
      texts.readout.textContent = `Total ${signed(row().reduce((sum, units) => sum + units, 0))} units to ${token()}`;
      scale.replaceChildren(legend(limit()));
      overview.draw();
    }
    const hint = source ? null : el("p", { class: "quiet" }, "Choose another underlined token with a click, or with Enter.");
    texts.list.classList.toggle("bare", labels.length > 64);
    const head = [el("p", { class: "map-name" }, title), heading, hint];
    return { element: el("div", { class: "text" }, head, texts.list, scale, texts.readout, overview.element), draw };
  }

  build();
  watch((name) => {
    if (name === "sample") build();
    if (name === "target" || name === "dark") redraw();
  });
}

// All explained tokens at once: a row for each, a column for each position.
function matrix(pane, all, limit, sequence, labels, source) {
  const [rows, width] = pane.units.shape;
  const { prompt, steps } = data.generation;
  const canvas = el("canvas", { class: "heat" });
  const cross = el("span", { class: "cross" });
  const name = `All explained tokens by position: rows are written tokens. Arrow keys up and down choose one.`;
  const height = Math.min(360, Math.max(48, rows * 16));
  const attributes = { class: "matrix", tabindex: 0, role: "img", "aria-label": name, style: { height: `${height}px` } };
  const box = el("div", attributes, canvas, cross);
  const readout = el("p", { class: "readout", "aria-live": "polite" }, "Each row is a written token; a click chooses it.");
  const scale = el("div");
  const find = (event) => {
    const place = box.getBoundingClientRect();
    const at = (amount, count) => Math.max(0, Math.min(count - 1, Math.floor(amount * count)));
    return [at((event.clientY - place.top) / place.height, rows), at((event.clientX - place.left) / place.width, width)];
  };
  box.addEventListener("pointermove", (event) => {
    const [n, i] = find(event);
    const from = `${tokenText(labels[i]).trim()} (${i})`;
    const to = tokenText(sequence.tokens[prompt + steps[n]]).trim();
    readout.textContent = `${from} \u2192 ${to} (step ${steps[n]}) \u00b7 ${signed(all[n * width + i])} units`;
  });
  box.addEventListener("click", (event) => change("target", find(event)[0]));
  box.addEventListener("keydown", (event) => {
    const to = { ArrowUp: state.target - 1, ArrowDown: state.target + 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    change("target", Math.max(0, Math.min(rows - 1, to)));
  });
  function draw() {
    heat(canvas, all, width, rows, limit);
    const style = { left: 0, width: 100, top: (100 * state.target) / rows, height: 100 / rows };
    for (const [side, amount] of Object.entries(style)) cross.style.setProperty(side, `${amount}%`);
    scale.replaceChildren(legend(limit));
  }
  const element = el("details", { open: true }, el("summary", {}, "All explained tokens at once"), box, scale, readout);
  return { element, draw };
}
