// What the page shows now: which sample, target and books, on which paper. Who draws is told of every change.

const data = JSON.parse(document.getElementById("data").textContent);
const wantsDark = matchMedia("(prefers-color-scheme: dark)");
const state = { sample: 0, target: 0, book: 0, dark: wantsDark.matches };
const watchers = [];

// react(changed): `changed` is the name of what is new.
function watch(react) {
  watchers.push(react);
}

function change(name, value) {
  if (state[name] === value) return;
  state[name] = value;
  hideTip();
  for (const react of watchers) react(name);
}

const LEFT_OUT = "Left out here, since this page would be too large.";

// Every column (a mode) with each of its sides, for the current target.
function books() {
  return data.columns.flatMap((one, number) =>
    one.books[state.target].map((book) => ({ book, column: number, name: bookName(one, book) })),
  );
}

function bookName(one, book) {
  return [data.columns.length > 1 || !book.side ? one.mode : "", book.side].filter(Boolean).join(", ");
}

// Units in per cent of the seed, where the seed is that of one sample.
function share(units, number) {
  const { seed } = data.columns[number].books[state.target][0];
  return data.count === 1 || data.kind === "generation" ? percent(units, seed) : "";
}

// The column of shares in a table; none where there are no shares.
function shareHead() {
  return data.count === 1 || data.kind === "generation" ? [{ text: "share", number: true }] : [];
}

function shareCell(units, number) {
  return shareHead().length ? el("td", { class: "number quiet" }, share(units, number)) : null;
}

// A choice among the books, where there are several.
function bookPicker(what) {
  const found = books();
  if (found.length < 2) return null;
  const options = found.map(({ name }, i) => el("option", { value: i, selected: i === state.book }, shown(name)));
  const choose = el("select", { on: { change: (event) => change("book", Number(event.target.value)) } }, options);
  return el("label", { class: "picker" }, el("span", {}, `${what} of`), choose);
}
