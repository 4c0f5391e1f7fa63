// Verdicts against the row that the reader chose, and the forest of paired differences under them.
const MOST_SEEDS = 12;

function drawVerdicts() {
  for (const section of document.querySelectorAll("#verdicts ~ section.subset")) {
    const subset = data.subsets.find(({name}) => name === section.dataset.subset);
    const list = section.querySelector(".questions");
    if (!list || !subset) continue;
    const show = () => {
      const reference = referenceOf(subset);
      section.querySelector(".reference").textContent = reference;
      list.replaceChildren(...subset.verdicts.filter(([row, against]) => against === reference && !rows.hidden(row))
        .map(([row, against, badge, word, text, cost]) => {
          const id = `verdict-${subset.name}-${row}-${against}`;
          return make("li", {id},
            make("span", {class: `badge ${badge}`}, word), " ", make("bdi", {}, text), " ",
            make("small", {class: "soft"}, cost), " ",
            make("a", {class: "to-pictures", href: state.address("samples", {
              subset: subset.name, a: row, b: against, by: subset.target, only: "all",
            }), "aria-label": `Pictures of ${row} and ${against}`}, "Pictures"), " ",
            make("a", {class: "to-here", href: state.address(id, {ref: against}), "aria-label": `Link to ${row} against ${against}`}, "#"));
        }));
    };
    state.listen(show);
    show();
  }
}

function forestPanel(container, subset, index) {
  const metric = data.metrics[index];
  const reference = referenceOf(subset);
  const j = subset.rows.findIndex(({name}) => name === reference);
  const other = subset.rows[j];
  const found = subset.rows.flatMap((row, i) => {
    const at = i !== j && !rows.hidden(row.name) && subset.pairs[`${i},${j}`]?.[index];
    return at ? [{name: row.name, at, trained: row.cells[index].trained || other.cells[index].trained, row}] : [];
  });
  if (!found.length) return null;
  const seeds = found.flatMap(({name, row}) => row.cells[index].seeds.slice(0, MOST_SEEDS).map((value, k) => {
    const same = other.seeds.indexOf(row.seeds[k]);
    const theirs = other.cells[index].seeds;
    return {name, x: value - (theirs[same] ?? d3.mean(theirs))};
  })).filter(({x}) => Number.isFinite(x));
  const width = panelWidth(container);
  const margin = Math.min(150, 20 + 7 * d3.max(found, ({name}) => name.length));
  const arrow = metric.better === 0 ? "" : metric.better > 0 ? ", better →" : ", ← better";
  const title = `${metric.label}${subset.name ? " on " + subset.name : ""}, minus ${reference}`;
  return panel(title, `${title}. ${inWords(metric, found)}.`, {
    width, height: 24 * found.length + 68, marginLeft: margin, marginTop: 10, marginRight: 14, marginBottom: 40,
    x: {label: `difference${arrow}`, grid: true, ticks: 4, nice: true, tickFormat: "~g"},
    y: {domain: found.map(({name}) => name), label: null, tickSize: 0},
    marks: [
      Plot.ruleX([0], {strokeOpacity: 0.6}),
      Plot.ruleY(found, {y: "name", x1: ({at}) => at[1], x2: ({at}) => at[2], stroke: ({name}) => rows.colour(name), strokeWidth: 3,
        strokeOpacity: ({trained}) => (trained ? 0.4 : 1)}),
      Plot.dot(seeds, {y: "name", x: "x", r: 2.5, stroke: "currentColor", strokeOpacity: 0.75, dy: 7}),
      Plot.dot(found, {y: "name", x: ({at}) => at[0], r: 5, symbol: ({name}) => rows.symbol(name), fill: ({name}) => rows.colour(name)}),
      Plot.tip(found, Plot.pointerY({y: "name", x: ({at}) => at[0],
        title: ({name, at, trained}) => `${name}\n${within(metric, at, "+")}${trained ? "\n† trained on this metric" : ""}`})),
    ],
  });
}

function drawForest(container) {
  const grid = make("div", {class: "panels"});
  const more = make("button", {type: "button", "data-more": true, onclick: () => {
    state.set({forest: state.get("forest") === "all" ? null : "all"});
  }});
  container.append(make("h3", {id: "differences-chart"}, "Paired differences"), make("p", {class: "soft"},
    "A bar is the 95 % interval of the paired difference, the large mark its mean, and each ring below it one seed. "
    + "Faint bars: a row was trained on the metric †."), grid, more);
  view(container, () => {
    const all = state.get("forest") === "all";
    more.textContent = all ? "Show the target metric alone" : "Show every metric";
    const order = (subset) => d3.range(data.metrics.length).sort((a, b) =>
      (data.metrics[b].name === subset.target) - (data.metrics[a].name === subset.target)
      || (data.metrics[b].better !== 0) - (data.metrics[a].better !== 0)
      || data.metrics[b].grouped - data.metrics[a].grouped || a - b);
    grid.replaceChildren(...data.subsets.flatMap((subset) => order(subset).slice(0, all ? undefined : 2)
      .map((index) => forestPanel(grid, subset, index))).filter(Boolean));
  });
}
