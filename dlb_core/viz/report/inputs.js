// The inputs: every one with its maps beside each other, by mode and by side.

const KINDS = {
  image: [imageView, imageControls, "image"],
  tokens: [tokensView, tokenControls, "text"],
  features: [featuresView, featureControls, "features"],
  values: [featuresView, featureControls, "values"],
  series: [seriesView, null, "series"],
};
const chosen = {}; // by input: what its controls say; it outlives a change of sample

function inputsSection(body) {
  let drawn = [];
  function build() {
    drawn = [];
    const found = data.columns.map((one) => one.views[state.target][state.sample]);
    const names = [...new Set(found[0].map((view) => view.name))];
    if (!names.length) body.replaceChildren(el("p", { class: "quiet" }, "No input was explained."));
    else body.replaceChildren(...names.map((name) => block(name, found)));
  }
  function block(name, found) {
    const maps = found.flatMap((views, of) => views.filter((view) => view.name === name).map((view) => ({ view, of })));
    const [first] = maps.map((map) => map.view);
    const [make, controls, kind] = KINDS[first.kind];
    const settings = (chosen[name] ??= { opacity: 0.7, channel: 0 });
    const mine = [];
    const figures = maps.map(({ view, of }) => {
      const made = make(view, settings, of);
      mine.push(made);
      const title = [data.columns.length > 1 ? `mode ${data.columns[of].mode}` : "", view.side].filter(Boolean).join(", ");
      const total = [`${signed(view.total)} units`, share(view.total, of)].filter(Boolean).join(" \u00b7 ");
      return el("figure", { class: `map map-${first.kind}` }, caption(shown(title || "Relevance"), total), made.element);
    });
    if (first.kind === "image" && first.picture) {
      const size = first.picture.shape;
      const stack = el("div", { class: "stack", style: frame(size[2], size[1]) }, picture(first));
      figures.unshift(el("figure", { class: "map map-image" }, caption("Input", "as it was given"), stack));
    }
    drawn.push(...mine);
    const bar = controls ? controls(first, settings, () => mine.forEach((made) => made.draw())) : null;
    const heading = el("h3", {}, named(name), el("span", { class: "quiet" }, ` ${kind}${extent(first)}`));
    const wide = ["tokens", "series"].includes(first.kind) && maps.length === 1;
    const grid = { class: wide ? "maps one" : `maps maps-${first.kind}`, style: { "--count": Math.min(4, figures.length) } };
    return el("div", { class: "input" }, heading, bar, el("div", grid, figures));
  }
  build();
  watch((name) => {
    if (name === "sample" || name === "target") build();
    if (name === "dark") drawn.forEach((made) => made.draw());
  });
}

function caption(name, beside) {
  return el("figcaption", {}, el("span", { class: "map-name" }, name), el("span", { class: "quiet" }, beside));
}

function extent(view) {
  if (view.kind === "image") return `, ${view.size[0]} \u00d7 ${view.size[1]} \u00d7 ${view.size[2]}`;
  if (view.kind === "tokens") return `, ${plural(view.labels.length + view.rest.count, "token")}`;
  if (view.kind === "series") return `, ${plural(view.steps, "step")}`;
  return `, ${view.rows.length + view.rest.count}`;
}
