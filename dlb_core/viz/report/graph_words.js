// Elements and words: everything that comes from the model becomes a text node or an attribute, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element with attributes and children (strings become text). */
function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An SVG element, likewise. */
function shape(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A long name that may break after its dots and underscores. */
function breakable(text) {
  const name = document.createDocumentFragment();
  for (const part of text.split(/(?<=[._:])/)) name.append(part, element("wbr"));
  return name;
}

/** Units in 3 significant digits, with a real minus; null is what JSON cannot say. */
function inWords(units) {
  if (units === null || units === undefined) return "not finite";
  const size = Math.abs(units);
  const text = size !== 0 && (size < 1e-4 || size >= 1e6) ? size.toExponential(2) : String(Number(size.toPrecision(3)));
  return (units < 0 ? "−" : "") + text;
}

/** A share of the seed in per cent; empty where units are per cent as it is. */
function shareInWords(units, whole) {
  return units === null || !whole || whole === 100 ? "" : `${inWords((100 * units) / whole)} %`;
}

/** A text no wider than `width`: cut in the middle, where names of modules differ least. */
function cutMiddle(text, width, measure) {
  if (text.length < 400 && measure(text) <= width) return text;
  const signs = Array.from(text);
  const kept = (count) =>
    `${signs.slice(0, Math.ceil(count / 2)).join("")}…${signs.slice(signs.length - Math.floor(count / 2)).join("")}`;
  let [low, high] = [0, Math.min(signs.length - 1, 400)];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (measure(kept(middle)) <= width) low = middle;
    else high = middle - 1;
  }
  return kept(low);
}

/** How wide a text is, in pixels, in a font like "600 13px system-ui". */
function measuring(font) {
  const paper = document.createElement("canvas").getContext("2d");
  paper.font = font;
  return (text) => paper.measureText(text).width;
}

/** "conv2d" of "aten::conv2d.default": an op's name without its library and its overload. */
function shortOp(op) {
  return op.replace(/^.*::/, "").replace(/\.[^.]*$/, "");
}
