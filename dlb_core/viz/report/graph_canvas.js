// Pan and zoom of one drawing. A plain wheel scrolls the page; with Ctrl (or a pinch on a touchpad) it zooms.

const LEAST = 0.08;
const MOST = 4;
const LARGE = 1.2; // a small drawing grows no further
const READABLE = 0.7; // a first view is no smaller, even if not all of it fits

/** Moves `moved` inside `svg`: {fit, zoom, pan, reveal, dragged}; size is the drawing's own {width, height}. */
function canvas(svg, moved, size) {
  const view = { x: 0, y: 0, scale: 1 };
  const room = () => ({ width: svg.clientWidth || 600, height: svg.clientHeight || 400 });
  const show = () => moved.setAttribute("transform", `translate(${view.x} ${view.y}) scale(${view.scale})`);
  const bounded = (scale) => Math.max(LEAST, Math.min(MOST, scale));

  /** All of the drawing; the first view keeps to a readable size and starts at the top. */
  function fit(least = LEAST) {
    const { width, height } = room();
    view.scale = Math.max(least, bounded(Math.min(LARGE, width / size.width, height / size.height)));
    view.x = (width - size.width * view.scale) / 2;
    view.y = Math.max(0, (height - size.height * view.scale) / 2);
    show();
  }

  function zoom(factor, x = room().width / 2, y = room().height / 2) {
    const scale = bounded(view.scale * factor);
    view.x = x - ((x - view.x) * scale) / view.scale;
    view.y = y - ((y - view.y) * scale) / view.scale;
    view.scale = scale;
    show();
  }

  function pan(dx, dy) {
    view.x += dx;
    view.y += dy;
    show();
  }

  /** Brings a box into view, no further than it must. */
  function reveal(box) {
    const { width, height } = room();
    const edge = 24;
    const [x, y] = [view.x + box.x * view.scale, view.y + box.y * view.scale];
    const [w, h] = [(box.width * view.scale) / 2 + edge, (HEIGHT * view.scale) / 2 + edge];
    const into = (at, half, whole) => (at < half ? half - at : at > whole - half ? whole - half - at : 0);
    pan(into(x, w, width), into(y, h, height));
  }

  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const frame = svg.getBoundingClientRect();
    const lines = event.deltaMode === 1 ? 16 : 1;
    const notch = Math.max(-100, Math.min(100, event.deltaY * lines));
    zoom(Math.exp(-notch / 400), event.clientX - frame.left, event.clientY - frame.top);
  }, { passive: false });

  const dragged = dragging(svg, pan);
  return { fit, zoom, pan, reveal, dragged };
}

/** Calls `pan` while the pointer is down and moves; returns whether the click that follows ends a drag. */
function dragging(svg, pan) {
  let last = null;
  let moved = false;
  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    last = { x: event.clientX, y: event.clientY };
    moved = false;
  });
  svg.addEventListener("pointermove", (event) => {
    if (last === null) return;
    const [dx, dy] = [event.clientX - last.x, event.clientY - last.y];
    if (!moved && Math.hypot(dx, dy) < 4) return;
    if (!moved) {
      moved = true; // only now: a captured pointer would take the click from the box under it
      svg.setPointerCapture(event.pointerId);
      svg.classList.add("dragged");
    }
    last = { x: event.clientX, y: event.clientY };
    pan(dx, dy);
  });
  const end = () => {
    last = null;
    svg.classList.remove("dragged");
  };
  svg.addEventListener("pointerup", end);
  svg.addEventListener("pointercancel", end);
  svg.addEventListener("pointerleave", () => {
    if (!moved) last = null;
  });
  return () => moved;
}

/** The box that an arrow key leads to: the nearest one in that direction, counting sideways steps double. */
function neighbour(groups, from, key) {
  const [dx, dy] = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[key];
  let [best, least] = [null, Infinity];
  for (const other of groups) {
    const [x, y] = [other.box.x - from.box.x, other.box.y - from.box.y];
    const ahead = x * dx + y * dy;
    const aside = Math.abs(x * dy) + Math.abs(y * dx);
    const far = ahead + 2 * aside;
    if (ahead > 1 && far < least) [best, least] = [other, far];
  }
  return best;
}
