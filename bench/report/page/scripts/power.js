// How likely a difference is to be seen, by its size: a panel for each ranked metric, a line for each number of seeds.
function drawPower(container) {
  if (!data.power.length) return;
  const grid = make("div", {class: "panels"});
  container.append(make("p", {class: "soft"}, "The chance that two methods that differ by so much are told apart, by the "
    + "number of seeds of each. The dashed line is 80 %."), grid);
  view(container, () => grid.replaceChildren(...data.power.map((curve) => powerPanel(grid, curve))));
}

function powerPanel(container, {metric: name, at, lines}) {
  const metric = metrics.get(name);
  const seeds = Object.keys(lines);
  const points = seeds.flatMap((count) => at.map((x, i) => ({x, y: lines[count][i], count})));
  // Each line carries its number where it passes one half, so that names stand apart.
  const named = seeds.map((count) => points.find((point) => point.count === count && point.y >= 0.5)).filter(Boolean);
  const words = named.map((point) => `with ${point.count} seed${point.count === "1" ? "" : "s"} half of all differences of `
    + `${written(metric, point.x)} are seen`);
  return panel(`Power of ${metric.label}`, `Power of ${metric.label}: ${words.join(", ") || "no difference is seen"}.`, {
    width: panelWidth(container, 340), height: 230, marginLeft: 48, marginBottom: 40,
    x: {label: "difference", ticks: 4, tickFormat: "~g"}, y: {domain: [0, 1], label: "seen", tickFormat: "~%", ticks: 5, grid: true},
    marks: [
      Plot.ruleY([0.8], {strokeDasharray: "4,3", strokeOpacity: 0.6}),
      Plot.line(points, {x: "x", y: "y", z: "count", stroke: "currentColor", strokeOpacity: 0.7}),
      Plot.text(named, {x: "x", y: "y", text: "count", stroke: "var(--paper)", strokeWidth: 5, fill: "currentColor"}),
      Plot.tip(points, Plot.pointer({x: "x", y: "y",
        title: ({x, y, count}) => `${count} seed${count === "1" ? "" : "s"}\n${written(metric, x)}: seen in ${d3.format(".0%")(y)}`})),
    ],
  });
}
