// The page: a head with links and choices, the sections, and the mark that it is ready.

const SECTIONS = [
  ...(data.kind === "generation"
    ? [
        ["generation", "Generation", generationSection, "What each written token came from."],
        ["how", "How", predictionSection, "What was explained, and in which mode."],
      ]
    : [
        ["prediction", "Prediction", predictionSection, "What the model said, and what of it is explained."],
        ["inputs", "Inputs", inputsSection, "Where the relevance of the target lies in what the model was given."],
      ]),
  ["ledger", "Ledger", ledgerSection, "Where every unit of the seed went; the shares add up to 100.00 %."],
  ["layers", "Layers", layersSection, "What entered each module on the way from the output to the inputs, and what was booked in it."],
  ...(anyExperts() ? [["experts", "Experts", expertsSection, "What each expert carried, layer by layer."]] : []),
  ["graph", "Graph", graphSection, "The way through the model: open a module to see what is in it."],
];

function section([id, title, build, about]) {
  const body = el("div", { class: "body" });
  const head = el("header", {}, el("h2", { id: `${id}-title` }, title), el("p", { class: "about" }, about));
  const made = el("section", { id, "aria-labelledby": `${id}-title` }, head, body);
  return { made, build: () => build(body) };
}

// A choice of sample or target, with what it is called; none where there is nothing to choose.
function picker(name, label, texts) {
  if (texts.length < 2) return null;
  const options = texts.map((text, i) => el("option", { value: i }, shown(text)));
  const choose = el("select", { id: `choose-${name}`, on: { change: (event) => change(name, Number(event.target.value)) } }, options);
  watch((changed) => {
    if (changed === name) choose.value = String(state[name]);
  });
  return el("label", { class: "picker" }, el("span", {}, label), choose);
}

function head() {
  const links = SECTIONS.map(([id, title]) => el("a", { href: `#${id}` }, title));
  const theme = el("button", { id: "theme", type: "button", on: { click: () => change("dark", !state.dark) } });
  const dress = () => {
    document.documentElement.dataset.theme = state.dark ? "dark" : "light";
    theme.textContent = state.dark ? "Light" : "Dark";
    theme.setAttribute("aria-label", state.dark ? "Use light colours" : "Use dark colours");
  };
  dress();
  watch((name) => {
    if (name === "dark") dress();
  });
  const generation = data.kind === "generation";
  const choices = [
    picker("sample", generation ? "Sequence" : "Sample", data.samples),
    picker("target", generation ? "Token" : "Target", data.targets),
  ].filter(Boolean);
  const mark = el("span", { class: "mark" }, "dlb");
  return el("div", { class: "top" }, el("div", { class: "top-row" }, mark, el("nav", { "aria-label": "Sections" }, links), choices, theme));
}

wantsDark.addEventListener("change", (event) => change("dark", event.matches));
let before = state.dark; // paper is white
addEventListener("beforeprint", () => {
  before = state.dark;
  change("dark", false);
});
addEventListener("afterprint", () => change("dark", before));
const sections = SECTIONS.map(section);
const modes = data.columns.map((one) => one.mode).join(" \u00b7 ");
const heading = el("h1", {}, named(data.model || "Relevance report"));
const title = el("div", { class: "title" }, heading, el("p", { class: "quiet" }, shown(modes ? `mode ${modes}` : "")));
document.body.append(head(), el("main", {}, title, sections.map((each) => each.made)), tip);
for (const each of sections) each.build();
window.dlbReady = performance.now();
