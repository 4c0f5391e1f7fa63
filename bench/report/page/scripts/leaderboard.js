// The main tables, which are there without scripts too: sort, hide rows, fold drift away, unfold tasks, see every seed.
function drawLeaderboard(controls) {
  const drift = data.metrics.some(({better}) => better === 0);
  const button = make("button", {type: "button", "data-drift": true, onclick: () => {
    state.set({drift: state.get("drift") ? null : "1"});
  }});
  if (drift) controls.append(button);
  for (const {name, label} of data.metrics.filter(({grouped}) => grouped)) {
    controls.append(make("button", {type: "button", "data-unfold": name, "aria-pressed": "false", onclick: () => {
      const open = state.list("tasks");
      state.set({tasks: open.includes(name) ? open.filter((one) => one !== name) : [...open, name]});
    }}, `Tasks of ${label}`));
  }
  for (const table of document.querySelectorAll("table.main")) enliven(table);
  const show = () => {
    document.documentElement.classList.toggle("with-drift", Boolean(state.get("drift")));
    button.textContent = state.get("drift") ? "Hide drift" : "Show drift";
    for (const one of controls.querySelectorAll("[data-unfold]")) {
      one.setAttribute("aria-pressed", String(state.list("tasks").includes(one.dataset.unfold)));
    }
  };
  state.listen(show);
  show();
}

function enliven(table) {
  const subset = data.subsets.find(({name}) => name === table.dataset.subset);
  if (!subset) return;
  const original = [...table.tBodies].map((body) => [...body.rows]);
  const byName = new Map(subset.rows.map((row) => [row.name, row]));
  for (const header of table.tHead.rows[0].cells) {
    const key = header.dataset.metric ?? (header.cellIndex === 0 ? "name" : null);
    if (!key) continue;
    const text = header.textContent;
    header.append(" ", make("button", {type: "button", class: "sort", "data-sort": key, "aria-label": `Sort by ${text}`, onclick: () => {
      const [by, way] = state.get("sort").split(":");
      const first = key === "name" || metrics.get(key).better < 0 ? "up" : "down";
      const next = by !== key ? first : way === first ? (first === "up" ? "down" : "up") : null;
      state.set({sort: next && `${key}:${next}`});
    }}, "↕"));
  }
  const index = (name) => data.metrics.findIndex((metric) => metric.name === name);
  for (const cell of table.querySelectorAll("td.score")) {
    const row = byName.get(cell.parentElement.dataset.row);
    cell.tabIndex = 0;
    const tell = () => hint(cell, details(row, index(cell.dataset.metric)));
    for (const event of ["mouseenter", "focus", "click"]) cell.addEventListener(event, tell);
    for (const event of ["mouseleave", "blur"]) cell.addEventListener(event, () => hint());
  }
  const show = () => {
    const [by, way] = state.get("sort").split(":");
    const value = (tr) => by === "name" ? tr.dataset.row : byName.get(tr.dataset.row)?.cells[index(by)]?.at?.[0];
    for (const [number, body] of [...table.tBodies].entries()) {
      const order = [...original[number]];
      if (by) {
        const compare = way === "up" ? d3.ascending : d3.descending;
        order.sort((a, b) => (value(a) === undefined) - (value(b) === undefined) || compare(value(a), value(b)));
      }
      body.append(...order);
      for (const tr of order) tr.hidden = rows.hidden(tr.dataset.row);
    }
    for (const header of table.tHead.rows[0].cells) {
      const button = header.querySelector("[data-sort]");
      if (!button) continue;
      const sorted = button.dataset.sort === by && way;
      if (sorted) header.setAttribute("aria-sort", way === "up" ? "ascending" : "descending");
      else header.removeAttribute("aria-sort");
      button.textContent = {up: "▲", down: "▼"}[sorted] ?? "↕";
    }
    unfold(table, subset, byName, index);
  };
  state.listen(show);
  show();
}

// Columns of a metric's tasks, to the right of it.
function unfold(table, subset, byName, index) {
  for (const cell of table.querySelectorAll(".task")) cell.remove();
  for (const name of state.list("tasks")) {
    const at = index(name);
    const tasks = at < 0 ? [] : [...new Set(subset.rows.flatMap((row) => Object.keys(row.cells[at].tasks)))].sort();
    for (const tr of table.rows) {
      const after = tr.querySelector(`[data-metric="${CSS.escape(name)}"]`);
      if (!after) continue;
      const row = byName.get(tr.dataset.row);
      after.after(...tasks.map((task) => {
        if (!row) return make("th", {scope: "col", class: "task"}, make("bdi", {}, task.replaceAll("_", " ")));
        const found = row.cells[at].tasks[task];
        return make("td", {class: "task"}, found ? written(data.metrics[at], found[0]) : "–",
          found ? make("div", {class: "counts"}, `n ${found[1]}`) : "");
      }));
    }
  }
}

function details(row, index) {
  const metric = data.metrics[index];
  const cell = row?.cells[index];
  if (!cell) return null;
  const lines = [`${row.name}, ${metric.label}`];
  if (row.kind === "method") lines.push(`${row.seeds.length} seeds, ${row.share} of the budget`);
  lines.push(cell.at ? `${within(metric, cell.at)}, 95 % interval` : "no mean: scores are missing", `n of N: ${cell.n}`);
  if (cell.seeds.length > 1) {
    lines.push(...cell.seeds.map((value, k) => `seed ${row.seeds[k] ?? k}: ${written(metric, value)}`));
  }
  if (cell.trained) lines.push("† trained on this metric");
  return lines;
}

function hint(cell = null, lines = null) {
  const box = document.getElementById("hint");
  box.hidden = !lines;
  if (!lines) return;
  box.replaceChildren(...lines.map((line) => make("div", {}, line)));
  const at = cell.getBoundingClientRect();
  const left = Math.min(at.left, document.documentElement.clientWidth - box.offsetWidth - 8);
  const above = at.top - box.offsetHeight - 6;
  box.style.left = `${Math.max(8, left) + scrollX}px`;
  box.style.top = `${(above > 0 ? above : at.bottom + 6) + scrollY}px`;
}
addEventListener("keydown", (event) => event.key === "Escape" && hint());
