// The search field: finds boxes by name, op or path, and says which one was chosen.

const LISTED = 30;

/** A field with a list of what it finds; `entries` are {id, name, where, text}, `choose(id)` goes there. */
function searchField(entries, fonts, choose) {
  const key = `dlb-graph-${(searchField.count = (searchField.count ?? 0) + 1)}`;
  const list = element("ul", { class: "found", role: "listbox", id: key, "aria-label": "Found", hidden: "" });
  const field = element("input", {
    type: "search", placeholder: "Find op or module", "aria-label": "Find op or a module", autocomplete: "off",
    spellcheck: "false", role: "combobox", "aria-expanded": "false", "aria-controls": key, "aria-autocomplete": "list",
  });
  let found = [];
  let chosen = 0;

  function close() {
    list.hidden = true;
    field.setAttribute("aria-expanded", "false");
    field.removeAttribute("aria-activedescendant");
  }

  function mark() {
    const options = [...list.querySelectorAll("[role=option]")];
    options.forEach((row, place) => row.setAttribute("aria-selected", String(place === chosen)));
    if (!options.length) return field.removeAttribute("aria-activedescendant");
    field.setAttribute("aria-activedescendant", options[chosen].id);
    options[chosen].scrollIntoView({ block: "nearest" });
  }

  function look() {
    const words = field.value.trim().toLowerCase();
    if (!words) return close();
    found = matches(entries, words);
    chosen = 0;
    const rows = found.slice(0, LISTED).map((entry, place) => {
      const row = element("li", { role: "option", id: `${key}-${place}`, title: `${entry.name}\n${entry.where}` },
        element("span", { class: "name" }, cutMiddle(entry.name, 170, fonts.name)),
        element("span", { class: "where" }, cutMiddle(entry.where, 200, fonts.name)));
      row.addEventListener("pointerdown", (event) => {
        event.preventDefault(); // the field keeps the focus, so that the list does not close before the click
        take(place);
      });
      return row;
    });
    if (found.length > LISTED) rows.push(element("li", { class: "more" }, `… ${found.length - LISTED} more`));
    if (!found.length) rows.push(element("li", { class: "more" }, "nothing found"));
    list.replaceChildren(...rows);
    list.hidden = false;
    field.setAttribute("aria-expanded", "true");
    mark();
  }

  function take(place) {
    const entry = found[place];
    if (!entry) return;
    close();
    field.value = entry.name;
    choose(entry.id);
  }

  field.addEventListener("input", look);
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    const last = Math.min(found.length, LISTED) - 1;
    if (event.key === "ArrowDown") chosen = Math.min(last, chosen + 1);
    else if (event.key === "ArrowUp") chosen = Math.max(0, chosen - 1);
    else if (event.key === "Enter") return take(chosen);
    else if (event.key === "Escape") return close();
    else return;
    event.preventDefault();
    mark();
  });
  return element("div", { class: "search" }, field, list);
}

/** Names that begin with the words first, then those that hold them, then ops and paths that do. */
function matches(entries, words) {
  const ranked = entries.map((entry) => {
    const name = entry.name.toLowerCase();
    return { entry, rank: name.startsWith(words) ? 0 : name.includes(words) ? 1 : entry.text.includes(words) ? 2 : 3 };
  });
  return ranked.filter(({ rank }) => rank < 3).sort((a, b) => a.rank - b.rank).map(({ entry }) => entry);
}
