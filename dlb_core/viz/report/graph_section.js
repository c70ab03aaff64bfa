// The graph: drawn when it first comes into view, since a model may have thousands of nodes.

function graphSection(body) {
  let seen = false;
  function build() {
    if (!seen) return;
    const found = books();
    const { book } = found[Math.min(state.book, found.length - 1)];
    const container = el("div", { class: "graph" });
    body.replaceChildren(...[bookPicker("Graph"), container].filter(Boolean));
    if (book.graph === null) container.append(el("p", { class: "quiet" }, LEFT_OUT));
    else dlbGraph(container, book.graph);
  }
  const look = () => {
    if (seen) return;
    seen = true;
    watcher.disconnect();
    build();
  };
  const watcher = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && look(), { rootMargin: "300px" });
  watcher.observe(body);
  addEventListener("beforeprint", look);
  watch((name) => {
    if (name === "target" || name === "book" || name === "dark") build();
  });
}
