// Two metrics against each other: intervals, the Pareto front, points sized by compute.
function drawTradeoffs(container) {
  const ranked = data.metrics.filter(({better}) => better !== 0);
  const first = data.subsets[0]?.target ?? ranked[0]?.name;
  const second = (ranked.find(({name, grouped}) => grouped && name !== first) ?? ranked.find(({name}) => name !== first) ?? ranked[0] ?? data.metrics[0]).name;
  const options = data.metrics.map(({name, heading}) => [name, heading]);
  const grid = make("div", {class: "panels wide-panels"});
  container.append(make("div", {class: "controls"}, choice("Across", "x", options, first), choice("Up", "y", options, second)),
    make("p", {class: "soft"}, "Crosses are 95 % intervals. The line is the Pareto front of the means: no other row is better on "
      + "both. The area of a point is the compute that one training took."), grid);
  view(container, () => {
    const [xi, yi] = [state.get("x", first), state.get("y", second)].map((name) => {
      const index = data.metrics.findIndex((metric) => metric.name === name);
      return index < 0 ? 0 : index;
    });
    grid.replaceChildren(...data.subsets.map((subset) => tradeoffPanel(grid, subset, xi, yi)).filter(Boolean));
  });
}

function front(points, x, y) {
  if (!x.better || !y.better) return [];
  const better = (a, b) => x.better * (a.x[0] - b.x[0]) >= 0 && y.better * (a.y[0] - b.y[0]) >= 0
    && (a.x[0] !== b.x[0] || a.y[0] !== b.y[0]);
  return points.filter((point) => !points.some((other) => better(other, point))).sort((a, b) => a.x[0] - b.x[0]);
}

function tradeoffPanel(container, subset, xi, yi) {
  const [x, y] = [data.metrics[xi], data.metrics[yi]];
  const points = subset.rows.filter((row) => !rows.hidden(row.name) && row.cells[xi].at && row.cells[yi].at)
    .map((row) => ({name: row.name, x: row.cells[xi].at, y: row.cells[yi].at, flops: row.spent[0],
      trained: row.cells[xi].trained || row.cells[yi].trained}));
  if (!points.length) return null;
  const best = front(points, x, y);
  const marked = rows.marked(subset);
  const title = `${y.label} against ${x.label}${subset.name ? " on " + subset.name : ""}`;
  const width = panelWidth(container, 620);
  const most = d3.max(points, ({flops}) => flops) || 1;
  const words = best.length ? `${title}. On the Pareto front: ${listed(best.map(({name}) => name))}.` : title;
  return panel(title, words, {
    width, height: Math.min(width, 420), marginLeft: 56, marginRight: 90, marginBottom: 40, inset: 12,
    x: {label: x.heading, grid: true, ticks: 5}, y: {label: y.heading, grid: true, ticks: 5},
    r: {type: "identity"},
    marks: [
      Plot.ruleY(points, {y: ({y: at}) => at[0], x1: ({x: at}) => at[1], x2: ({x: at}) => at[2], stroke: ({name}) => rows.colour(name), strokeOpacity: 0.35}),
      Plot.ruleX(points, {x: ({x: at}) => at[0], y1: ({y: at}) => at[1], y2: ({y: at}) => at[2], stroke: ({name}) => rows.colour(name), strokeOpacity: 0.35}),
      Plot.line(best, {x: ({x: at}) => at[0], y: ({y: at}) => at[0], stroke: "currentColor", strokeOpacity: 0.5, strokeDasharray: "4,3"}),
      Plot.dot(points, {x: ({x: at}) => at[0], y: ({y: at}) => at[0], r: ({flops}) => 4 + 5 * Math.sqrt(flops / most),
        symbol: ({name}) => rows.symbol(name), fill: ({name}) => rows.colour(name), fillOpacity: 0.85}),
      Plot.text(points.filter(({name}) => marked.has(name) || best.some((point) => point.name === name)), {
        x: ({x: at}) => at[0], y: ({y: at}) => at[0], text: "name", dx: 12, textAnchor: "start", fill: ({name}) => rows.colour(name),
        stroke: "var(--paper)", strokeWidth: 4}),
      Plot.tip(points, Plot.pointer({x: ({x: at}) => at[0], y: ({y: at}) => at[0],
        title: (point) => `${point.name}\n${x.label} ${within(x, point.x)}\n${y.label} ${within(y, point.y)}`
          + (point.flops ? `\n${d3.format(".3~s")(point.flops)} FLOPs` : "") + (point.trained ? "\n† trained on one of them" : "")})),
    ],
  });
}
