// Elements and the one tip. What the data names comes in as text or as the value of a harmless attribute, never as markup.

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, react] of Object.entries(value)) made.addEventListener(event, react);
    } else if (name === "style") {
      for (const [property, setting] of Object.entries(value)) made.style.setProperty(property, setting);
    } else {
      made.setAttribute(name, value === true ? "" : String(value));
    }
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}

// Characters without a shape as signs, and those that turn the direction of text as their codes: nothing is invisible.
function shown(text) {
  return String(text)
    .replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/[\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g, (c) => {
      return `\u2039U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}\u203a`;
    });
}

// A text that the user named: its own direction, and no effect on what stands beside it.
function named(text, attributes = {}) {
  return el("bdi", attributes, shown(text));
}

function table(headings, rows, attributes = {}) {
  const head = headings.map((heading) =>
    el("th", { scope: "col", class: heading.number ? "number" : null }, heading.text ?? heading),
  );
  return el("table", attributes, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows));
}

const tip = el("div", { class: "tip", role: "tooltip", hidden: true });

function showTip(anchor, text) {
  tip.textContent = text;
  tip.hidden = false;
  const place = anchor.getBoundingClientRect();
  const size = tip.getBoundingClientRect();
  const left = Math.max(8, Math.min(place.left + place.width / 2 - size.width / 2, innerWidth - size.width - 8));
  const above = place.top - size.height - 6;
  tip.style.setProperty("left", `${left + scrollX}px`);
  tip.style.setProperty("top", `${(above < 60 ? place.bottom + 6 : above) + scrollY}px`);
}

function hideTip() {
  tip.hidden = true;
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideTip();
});

// One of several elements has the tab stop; arrow keys, Home and End go to the others.
function roving(items, react, keys = { next: "ArrowRight", previous: "ArrowLeft" }) {
  let current = 0;
  const stop = (index) => {
    items[current].tabIndex = -1;
    current = index;
    items[current].tabIndex = 0;
  };
  items.forEach((item, index) => {
    item.tabIndex = index === 0 ? 0 : -1;
    item.addEventListener("focus", () => {
      stop(index);
      react(index);
    });
    item.addEventListener("keydown", (event) => {
      const goes = { [keys.next]: index + 1, [keys.previous]: index - 1, Home: 0, End: items.length - 1 };
      if (!(event.key in goes)) return;
      event.preventDefault();
      items[Math.max(0, Math.min(items.length - 1, goes[event.key]))].focus();
    });
  });
}
