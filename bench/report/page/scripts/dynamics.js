// Small multiples over training: a row of panels for each metric, the same axes for every subset, few lines in colour.
const AXES = [["0", "FLOPs"], ["1", "updates"], ["2", "seconds"]];

function drawDynamics(container) {
  const own = {updates: "1", steps: "1", "device-seconds": "2"}[data.currency] ?? "0";
  const grid = make("div", {class: "dynamics"});
  container.append(make("div", {class: "controls"},
    choice("Show", "as", [["raw", "the metric"], ["difference", "the difference to the row held against"]], "raw"),
    choice("Along", "along", AXES, own),
    choice("Metrics", "curves", [["ranked", "ranked ones"], ["all", "all"], ...data.metrics.map(({name, label}) => [name, label])], "ranked")),
  make("p", {class: "soft"}, "Bands are 95 % intervals. Grey lines are the other rows: star a row above to draw it in colour."), grid);
  view(container, () => {
    const which = state.get("curves", "ranked");
    const indices = d3.range(data.metrics.length).filter((i) => which === "all" || data.metrics[i].name === which
      || (which === "ranked" && data.metrics[i].better !== 0));
    const chosen = indices.length ? indices : [0];
    grid.style.setProperty("--subsets", data.subsets.length);
    grid.replaceChildren(...chosen.flatMap((index) => curves(grid, index, Number(state.get("along", own)))));
  });
}

function curves(container, index, axis) {
  const metric = data.metrics[index];
  const differences = state.get("as", "raw") === "difference";
  const found = data.subsets.map((subset) => ({subset, lines: linesOf(subset, index, axis, differences)}));
  const points = found.flatMap(({lines}) => lines.flatMap((line) => line.points));
  if (!points.length) return [];
  const x = [0, d3.max(points, (point) => point.x)];
  const inked = found.flatMap(({lines}) => lines.flatMap((line) => line.points.flatMap((point) => line.marked ? point.at : [point.at[0]])));
  const y = d3.extent(differences ? [...inked, 0] : inked);
  return found.map(({subset, lines}) => {
    const title = `${metric.heading}${subset.name ? " on " + subset.name : ""}${differences ? ", minus " + referenceOf(subset) : ""}`;
    const marked = lines.filter((line) => line.marked);
    const flat = (of) => of.flatMap((line) => line.points.map((point) => ({...point, name: line.name})));
    const ends = marked.map((line) => ({...line.points.at(-1), name: line.name})).sort((a, b) => b.at[0] - a.at[0]);
    const words = differences ? inWords(metric, ends) : ends.map((end) => `${end.name} ${written(metric, end.at[0])}`).join(", ");
    const width = panelWidth(container, data.subsets.length > 1 ? (container.clientWidth - 24) / Math.min(data.subsets.length, 3) : 900);
    const spread = apart(ends, y, 170);
    return panel(title, `${title}. At the end: ${words || "nothing is chosen"}.`, {
      width, height: 240, marginLeft: 52, marginRight: Math.min(140, 24 + 7 * (d3.max(ends, ({name}) => name.length) ?? 0)),
      x: {domain: x, label: AXES[axis][1], ticks: 4, tickFormat: "~s"}, y: {domain: y, nice: true, label: metric.label, grid: true, ticks: 5},
      marks: [
        differences ? Plot.ruleY([0], {strokeOpacity: 0.6}) : null,
        Plot.line(flat(lines.filter((line) => !line.marked)), {x: "x", y: ({at}) => at[0], z: "name", stroke: "var(--soft)", strokeOpacity: 0.45}),
        Plot.areaY(flat(marked), {x: "x", y1: ({at}) => at[1], y2: ({at}) => at[2], z: "name", fill: ({name}) => rows.colour(name), fillOpacity: 0.12}),
        Plot.line(flat(marked), {x: "x", y: ({at}) => at[0], z: "name", stroke: ({name}) => rows.colour(name), strokeWidth: 2}),
        Plot.dot(flat(marked), {x: "x", y: ({at}) => at[0], symbol: ({name}) => rows.symbol(name), fill: ({name}) => rows.colour(name), r: 3.5}),
        Plot.text(spread, {x: x[1], y: "label", text: "name", dx: 10, textAnchor: "start", fill: ({name}) => rows.colour(name)}),
        Plot.tip(flat(lines), Plot.pointer({x: "x", y: ({at}) => at[0],
          title: ({name, x: value, at}) => `${name}\n${within(metric, at, differences ? "+" : "")}\n${d3.format("~s")(value)} ${AXES[axis][1]}`})),
      ],
    });
  });
}

// Where names stand so that none covers another: from the top down, at least a line apart.
function apart(ends, [low, high], height) {
  const step = (15 / height) * (high - low || 1);
  let last = Infinity;
  return ends.map((end) => {
    last = Math.min(end.at[0], last - step);
    return {...end, label: last};
  });
}

function linesOf(subset, index, axis, differences) {
  if (!subset.dynamics) return [];
  const marked = rows.marked(subset);
  const reference = referenceOf(subset);
  const j = subset.rows.findIndex(({name}) => name === reference);
  return subset.rows.flatMap((row, i) => {
    if (row.kind !== "method" || rows.hidden(row.name) || (differences && i === j)) return [];
    const values = differences ? subset.dynamics.pairs[`${i},${j}`]?.[index] : subset.dynamics.values[i][index];
    const points = (values ?? []).map((at, k) => ({x: subset.dynamics.spent[i][k][axis], at})).filter(({at}) => at);
    return points.length ? [{name: row.name, points, marked: marked.has(row.name)}] : [];
  });
}
