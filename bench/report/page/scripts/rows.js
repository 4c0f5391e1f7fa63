// Which rows are shown, which stand out, and what they are held against: one bar for the whole page.
const names = Object.keys(data.looks);
const MOST_IN_COLOUR = 4;

const rows = {
  hidden: (name) => state.list("hide").includes(name) || !rows.found(name),
  found: (name) => name.toLowerCase().includes(state.get("find").toLowerCase()),
  colour: (name) => `var(--row-${data.looks[name].number})`,
  symbol: (name) => data.looks[name].symbol,
  // Rows that are drawn in colour where lines are many: the reader's, else the reference and the leaders of the target.
  marked(subset) {
    const chosen = state.list("mark");
    if (chosen.length) return new Set(chosen);
    const target = data.metrics.findIndex((metric) => metric.name === subset.target);
    const sign = data.metrics[target].better || 1;
    const ranked = subset.rows.filter((row) => row.kind === "method" && row.cells[target].at && !rows.hidden(row.name));
    ranked.sort((a, b) => sign * (b.cells[target].at[0] - a.cells[target].at[0]));
    return new Set([referenceOf(subset), ...ranked.map((row) => row.name)].slice(0, MOST_IN_COLOUR));
  },
};

// The symbols that Plot draws, of the same area. d3 has no hexagon.
const SYMBOLS = {
  circle: d3.symbolCircle, square: d3.symbolSquare, diamond: d3.symbolDiamond, triangle: d3.symbolTriangle,
  cross: d3.symbolCross, star: d3.symbolStar, hexagon: {
    draw(context, area) {
      const side = Math.sqrt(area * 2 / (3 * Math.sqrt(3)));
      for (let i = 0; i < 6; i++) context[i ? "lineTo" : "moveTo"](side * Math.sin(i * Math.PI / 3), side * Math.cos(i * Math.PI / 3));
      context.closePath();
    },
  },
};

function glyph(name, size = 14) {
  const path = d3.symbol(SYMBOLS[rows.symbol(name)], 60)();
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "-7 -7 14 14");
  svg.setAttribute("width", size);
  svg.setAttribute("height", size);
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
  shape.setAttribute("d", path);
  shape.setAttribute("fill", rows.colour(name));
  svg.append(shape);
  return svg;
}

function drawRows(bar) {
  const options = names.map((name) => [name, name]);
  const find = make("input", {type: "search", "data-key": "find", oninput: () => state.set({find: find.value || null})});
  find.value = state.get("find");
  const chips = make("div", {class: "chips"});
  const show = () => {
    const hidden = state.list("hide");
    const marked = state.list("mark");
    chips.replaceChildren(...names.map((name) => make("span", {class: "row-chip" + (rows.hidden(name) ? " off" : "")},
      make("label", {}, make("input", {
        type: "checkbox", "data-hide": name, checked: !hidden.includes(name),
        onchange: () => {
          const next = hidden.includes(name) ? hidden.filter((one) => one !== name) : [...hidden, name];
          state.set({hide: next});
          bar.querySelector(`[data-hide="${CSS.escape(name)}"]`)?.focus();
        },
      }), glyph(name), make("bdi", {}, name)),
      make("button", {
        type: "button", "data-mark": name, "aria-pressed": String(marked.includes(name)), title: `Draw ${name} in colour`,
        "aria-label": `Draw ${name} in colour`,
        onclick: () => {
          state.set({mark: marked.includes(name) ? marked.filter((one) => one !== name) : [...marked, name]});
          bar.querySelector(`[data-mark="${CSS.escape(name)}"]`)?.focus();
        },
      }, marked.includes(name) ? "★" : "☆"))));
  };
  const own = data.subsets.length ? data.subsets[0].reference : "";
  bar.append(
    make("div", {class: "controls"}, choice("Hold against", "ref", options, own), make("label", {}, "Find rows ", find),
      make("button", {type: "button", onclick: () => {
        find.value = "";
        state.set({hide: null, mark: null, find: null, ref: null, sort: null, drift: null});
      }}, "Reset")),
    make("details", {open: names.length <= 6 && innerWidth > 700},
      make("summary", {}, `Rows: ${names.length}. Tick to show, star to draw in colour`), chips),
  );
  state.listen(show);
  show();
}
