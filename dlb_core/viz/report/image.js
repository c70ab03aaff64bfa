// An image: relevance over the grey picture, one pixel's value under the pointer or the arrow keys.

// settings: { opacity, channel }, shared by all maps of one input. Returns the element and how to set it anew.
function imageView(view, settings, of) {
  const [channels, height, width] = view.units.shape;
  const all = unpacked(view.units);
  const area = height * width;
  const summed = new Float32Array(area);
  for (let c = 0; c < channels; c++) for (let i = 0; i < area; i++) summed[i] += all[c * area + i];
  const plane = () => (settings.channel > 0 ? all.subarray((settings.channel - 1) * area, settings.channel * area) : summed);
  const limit = () => view.limits[settings.channel] ?? view.limits[0];

  const map = el("canvas", {
    class: "heat",
    tabindex: 0,
    role: "img",
    "aria-label": `Relevance of ${shown(view.name)}${view.side ? `, ${view.side}` : ""}: arrow keys read single pixels`,
  });
  const cross = el("span", { class: "cross", hidden: true, "aria-hidden": "true" });
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  const stack = el("div", { class: "stack", style: frame(width, height) }, picture(view, true), map, cross);
  const scale = el("div");
  let place = null;

  function draw() {
    heat(map, plane(), width, height, limit());
    map.style.setProperty("opacity", view.picture ? settings.opacity : 1);
    scale.replaceChildren(legend(limit()));
    read();
  }
  function read() {
    cross.hidden = place === null;
    if (place === null) {
      readout.textContent = "Point at a pixel, or use the arrow keys, to read its units.";
      return;
    }
    const [row, col] = place;
    const value = plane()[row * width + col];
    const style = { left: (100 * col) / width, top: (100 * row) / height, width: 100 / width, height: 100 / height };
    for (const [side, amount] of Object.entries(style)) cross.style.setProperty(side, `${amount}%`);
    const where = view.block > 1 ? `rows ${span(row)}, columns ${span(col)}` : `row ${row}, column ${col}`;
    readout.textContent = [where, `${signed(value)} units`, share(value, of)].filter(Boolean).join(" · ");
  }
  const span = (at) => `${at * view.block}\u2013${(at + 1) * view.block - 1}`;
  const at = (amount, count) => Math.max(0, Math.min(count - 1, Math.floor(amount * count)));

  map.addEventListener("pointermove", (event) => {
    const box = map.getBoundingClientRect();
    place = [at((event.clientY - box.top) / box.height, height), at((event.clientX - box.left) / box.width, width)];
    read();
  });
  const leave = () => {
    place = null;
    read();
  };
  map.addEventListener("pointerleave", leave);
  map.addEventListener("keydown", (event) => {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === "Escape") leave();
    if (!steps) return;
    event.preventDefault();
    const far = event.shiftKey ? 10 : 1;
    const [row, col] = place ?? [Math.floor(height / 2) - steps[0], Math.floor(width / 2) - steps[1]];
    place = [
      Math.max(0, Math.min(height - 1, row + far * steps[0])),
      Math.max(0, Math.min(width - 1, col + far * steps[1])),
    ];
    read();
  });
  draw();
  return { element: el("div", { class: "image" }, stack, scale, readout), draw };
}

// As wide as there is room, and no higher than 560 pixels.
function frame(width, height) {
  return { "aspect-ratio": `${width} / ${height}`, width: `min(100%, ${Math.ceil((560 * width) / height)}px)` };
}

// The picture itself; null where there is none.
function picture(view, grey = false) {
  if (!view.picture) return null;
  const [channels, height, width] = view.picture.shape;
  const bytes = unpacked(view.picture);
  const canvas = el("canvas", { class: `picture${grey ? " grey" : ""}${width < 128 ? "" : " smooth"}`, width, height });
  if (grey) canvas.setAttribute("aria-hidden", "true");
  else {
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `The input ${shown(view.name)}`);
  }
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const area = height * width;
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = bytes[(channels === 3 ? c : 0) * area + i];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// The slider and the choice of channels of one input.
function imageControls(view, settings, changed) {
  const [channels] = view.units.shape;
  const shownOpacity = el("output", {}, `${Math.round(100 * settings.opacity)} %`);
  const slider = el("input", {
    type: "range", min: 0, max: 100, step: 5, value: Math.round(100 * settings.opacity),
    on: {
      input: (event) => {
        settings.opacity = Number(event.target.value) / 100;
        shownOpacity.textContent = `${event.target.value} %`;
        changed();
      },
    },
  });
  const names = ["all, summed", ...(channels > 1 ? Array.from({ length: channels }, (_, c) => `channel ${c}`) : [])];
  const options = names.map((name, i) => el("option", { value: i, selected: i === settings.channel }, name));
  const choose = el("select", {
    on: {
      change: (event) => {
        settings.channel = Number(event.target.value);
        changed();
      },
    },
  }, options);
  return el(
    "div",
    { class: "controls" },
    view.picture ? el("label", {}, el("span", {}, "Overlay"), slider, shownOpacity) : null,
    channels > 1 ? el("label", {}, el("span", {}, "Channels"), choose) : null,
  );
}
