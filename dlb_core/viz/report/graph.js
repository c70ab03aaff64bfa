// The drill-down graph: one picture per module, laid out when it is first opened.

const FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif";

/** Builds the graph of a document of graph_data.py inside `container`. */
function dlbGraph(container, graph) {
  container.classList.add("dlb-graph");
  if (!("" in graph.levels)) {
    container.replaceChildren(element("p", { class: "reason" }, graph.reason ?? "There is no graph to draw."));
    return;
  }
  const known = new Map(Object.entries(graph.boxes));
  const levels = new Map(Object.entries(graph.levels));
  const homes = new Map(); // box -> path of the level it stands in
  for (const [path, level] of levels) for (const id of level.boxes) if (!homes.has(id)) homes.set(id, path);
  const owners = new Map(); // path of a level -> the box that opens it
  for (const [id, about] of known) if (levels.has(about.opens)) owners.set(about.opens, id);
  const fonts = { name: measuring(`600 13px ${FONT}`), small: measuring(`11px ${FONT}`) };
  const whole = graph.whole;
  const pictures = new Map();
  let here = "";
  let picture = null;

  const crumbs = element("nav", { class: "crumbs", "aria-label": "Module path" });
  const stage = element("div", { class: "stage" });
  const panel = element("aside", { class: "details", "aria-label": "Details", "aria-live": "polite" });
  const buttons = element("div", { class: "buttons", role: "group", "aria-label": "Zoom" },
    button("−", "", () => picture.view.zoom(1 / 1.25), { "aria-label": "Zoom out" }),
    button("+", "", () => picture.view.zoom(1.25), { "aria-label": "Zoom in" }),
    button("Fit", "", () => picture.view.fit(), { "aria-label": "Fit all" }));
  const find = searchField(searchable(known, homes), fonts, (id) => go(id, true));
  container.replaceChildren(
    element("div", { class: "bar" }, crumbs, find, buttons),
    element("div", { class: "main" }, stage, panel),
    scaleKey(),
  );

  /** The modules around a level, outermost first, as paths. */
  function around(path) {
    const chain = [];
    for (let at = path; at !== undefined && !chain.includes(at); at = homes.get(owners.get(at))) chain.unshift(at);
    return chain;
  }

  function name(path) {
    return path === "" ? "model" : known.get(owners.get(path)).label;
  }

  function opens(id) {
    const path = known.get(id).opens;
    return levels.has(path) ? path : null;
  }

  function show(path) {
    here = path;
    if (!pictures.has(path)) pictures.set(path, painted(path));
    picture = pictures.get(path);
    stage.replaceChildren(picture.svg);
    settle();
    crumbs.replaceChildren(element("ol", {}, ...around(path).map((step) => {
      const text = cutMiddle(name(step), 180, fonts.name);
      const current = step === path ? { "aria-current": "location" } : {};
      return element("li", {}, button(text, "", () => { show(step); rest(); }, { title: step || "model", ...current }));
    })));
    select(null);
  }

  /** The first view of a picture, as soon as there is room for one: the page may build it hidden. */
  function settle() {
    if (picture.settled || !stage.clientWidth) return;
    picture.view.fit(READABLE);
    picture.settled = true;
  }

  function painted(path) {
    const layout = laidOut(levels.get(path), known, fonts);
    const title = `Graph of ${path === "" ? "the model" : name(path)}`;
    const { svg, moved, groups, trace } = drawn(layout, known, whole, title);
    const view = canvas(svg, moved, layout);
    const byGroup = new Map(groups.map((entry) => [entry.group, entry]));
    const made = { svg, view, groups, trace, entry: (target) => byGroup.get(target.closest(".box")) };
    svg.addEventListener("click", (event) => {
      const entry = made.entry(event.target);
      if (view.dragged() || event.detail > 1) return; // the second of a double click may hit what the first one opened
      if (!entry) select(null);
      else if (entry.box.port) go(entry.box.id);
      else select(entry);
    });
    svg.addEventListener("dblclick", (event) => {
      const entry = made.entry(event.target);
      if (entry && !entry.box.port) act(entry);
    });
    svg.addEventListener("keydown", (event) => keys(event, made));
    svg.addEventListener("focusin", (event) => {
      const entry = made.entry(event.target);
      if (entry && event.target.matches(":focus-visible")) view.reveal(entry.box);
    });
    return made;
  }

  /** What Enter or a double click does to a box. */
  function act(entry) {
    const path = opens(entry.box.id);
    if (entry.box.port) go(entry.box.id, true);
    else if (path === null) select(entry);
    else {
      show(path);
      rest();
    }
  }

  /** Puts the focus on the picture, so that the keys go on working. */
  function rest() {
    picture.svg.focus({ preventScroll: true });
  }

  function up() {
    if (here !== "") go(owners.get(here), true);
  }

  /** Shows the level a box lives in, and the box. */
  function go(id, focus = false) {
    const home = homes.get(id);
    if (home === undefined) return;
    if (home !== here) show(home);
    const entry = picture.groups.find(({ box }) => box.id === id && !box.port);
    select(entry);
    picture.view.reveal(entry.box);
    if (focus) entry.group.focus({ preventScroll: true });
  }

  /** Marks a box and says what is known of it; without one, of the module that is shown. */
  function select(entry) {
    for (const { group } of picture.groups) group.classList.toggle("chosen", group === entry?.group);
    picture.trace(entry?.box);
    const id = entry ? entry.box.id : owners.get(here);
    if (id === undefined) {
      panel.replaceChildren(...overview(graph, known));
      return;
    }
    const path = entry ? opens(id) : null;
    const open = path === null ? null : () => { show(path); rest(); };
    const level = levels.get(homes.get(id));
    const flows = level.edges.flatMap(([from, to, units]) => (
      to === id ? [["from", from, units]] : from === id ? [["to", to, units]] : []));
    const name = (end) => cutMiddle(known.get(end).label, 300, fonts.name);
    showDetails(panel, id, known.get(id), { whole, flows, go, open, name });
  }

  function keys(event, made) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const entry = made.entry(event.target);
    const key = event.key;
    const step = { ArrowUp: [0, 60], ArrowDown: [0, -60], ArrowLeft: [60, 0], ArrowRight: [-60, 0] }[key];
    if (step && entry && !event.shiftKey) neighbour(made.groups, entry, key)?.group.focus({ preventScroll: true });
    else if (step) made.view.pan(...step);
    else if (key === "+" || key === "=") made.view.zoom(1.25);
    else if (key === "-") made.view.zoom(1 / 1.25);
    else if (key === "0") made.view.fit();
    else if (key === "Escape" || key === "Backspace") up();
    else if (key === "Enter" || key === " ") act(entry ?? made.groups[0]);
    else return;
    event.preventDefault();
  }

  show("");
  new ResizeObserver(settle).observe(stage);
}

function searchable(known, homes) {
  return [...homes.keys()].map((id) => {
    const about = known.get(id);
    const where = about.kind === "op" || about.kind === "module" ? about.path : about.kind;
    const text = [about.label, about.path, about.op ?? "", ...(about.folded ?? [])].join("\n").toLowerCase();
    return { id, name: about.label, where, text };
  });
}

/** What the panel says before anything was chosen. */
function overview(graph, known) {
  const rows = [];
  const row = (word, units) => rows.push(
    element("dt", {}, word), element("dd", { class: "amount" }, withShare(units, graph.whole)));
  row("Seed", graph.seed);
  for (const about of known.values()) if (about.kind === "input") row(about.label, about.into);
  const hint = "Click a box to see its numbers; double-click a module (a box with a shadow) to look inside.";
  return [element("p", { class: "what" }, "Model"), element("dl", {}, ...rows), element("p", { class: "hint" }, hint)];
}

function scaleKey() {
  const scale = element("span", { class: "scale", role: "img", "aria-label": "blue below zero, red above" });
  const keys = "Drag to move, Ctrl + wheel to zoom. Keys: Tab and arrows, + − 0, Enter opens, Esc goes up.";
  return element("div", { class: "scale-key" },
    element("span", {}, "−100 %"), scale, element("span", {}, "+100 % of the seed; beyond that no darker"),
    element("span", { class: "hint" }, keys));
}
