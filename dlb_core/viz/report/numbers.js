// Numbers as they are read: a true minus, few digits, and the same decimals down a column.

function minus(text) {
  return text.replace(/-/g, "\u2212");
}

// Four significant digits; what is no number is shown by its name ("nan").
function number(value, digits = 4) {
  if (typeof value !== "number") return value === null || value === undefined ? "" : String(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e7) return minus(value.toExponential(digits - 2));
  if (Number.isInteger(value)) return minus(String(value));
  return minus(value.toFixed(Math.max(0, digits - 1 - Math.floor(Math.log10(size)))));
}

function signed(value, digits = 4) {
  return typeof value === "number" && value > 0 ? `+${number(value, digits)}` : number(value, digits);
}

// A column: as many decimals as its largest number needs; what would vanish then is written with an exponent.
function column(values, sign = false) {
  const sizes = values.filter((v) => typeof v === "number").map(Math.abs);
  const largest = Math.max(0, ...sizes);
  const decimals = largest > 0 ? Math.max(0, Math.min(8, 3 - Math.floor(Math.log10(largest)))) : 0;
  return values.map((value) => {
    if (typeof value !== "number" || value === 0) return number(value);
    const text = Math.abs(value) < 0.5 * 10 ** -decimals ? value.toExponential(1) : value.toFixed(decimals);
    return minus(sign && value > 0 ? `+${text}` : text);
  });
}

function percent(part, whole) {
  if (typeof part !== "number" || typeof whole !== "number" || whole === 0) return "";
  return `${minus(((100 * part) / whole).toFixed(2))} %`;
}

// Base64 to numbers: float32, or bytes.
function unpacked(array) {
  const text = atob(array.f32 ?? array.u8);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return array.f32 === undefined ? bytes : new Float32Array(bytes.buffer);
}

function plural(count, one) {
  return `${count} ${one}${count === 1 ? "" : "s"}`;
}
