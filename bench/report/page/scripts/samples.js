// Two rows, picture by picture: what each drew for the same prompt and noise, with its score, the largest disagreement first.
const AT_ONCE = 12;

function drawSamples(container) {
  const {browser} = data;
  if (!browser.rows.length || !browser.items.length) return;
  const status = make("p", {"aria-live": "polite", id: "browser-count"});
  const list = make("div", {class: "cards"});
  const more = make("button", {type: "button", "data-more": true, onclick: () => {
    state.set({many: String(Number(state.get("many", AT_ONCE)) + AT_ONCE)});
  }}, `Show ${AT_ONCE} more`);
  const controls = make("div", {class: "controls"});
  container.append(controls, status, list, more);
  const subsets = [...new Set(browser.rows.map(({subset}) => subset))];
  const subsetOf = () => (subsets.includes(state.get("subset")) ? state.get("subset") : subsets[0]);
  let built = null;
  const build = () => {
    const subset = subsetOf();
    if (built === subset) return;
    built = subset;
    const there = browser.rows.filter((row) => row.subset === subset).map(({name}) => [name, name]);
    const tasks = [...new Set(browser.prompts.map(([, , , group]) => group))];
    const prompts = browser.prompts.map(([set, id, text]) => [`${set}/${id}`, text]);
    const noises = [...new Set(browser.items.map(([, repeat]) => repeat))].sort(d3.ascending);
    const fresh = {many: null};
    controls.replaceChildren(...[
      subsets.length > 1 ? choice("Subset", "subset", subsets.map((name) => [name, name]), subset, fresh) : null,
      choice("Row", "a", there, chosen(subset).a, fresh), choice("against", "b", there, chosen(subset).b, fresh),
      choice("Score", "by", data.metrics.map(({name, heading}) => [name, heading]), chosen(subset).by, fresh),
      choice("Checkpoint", "at", checkpoints(), "last", fresh),
      choice("Training seed", "seed", seedsOf().map((seed, i) => [String(i), `number ${i + 1} (${seed})`]), "0", fresh),
      choice("Only", "only", [["all", "all"], ["win", "wins"], ["tie", "ties"], ["loss", "losses"]], "all", fresh),
      choice("Task", "task", [["", "all"], ...tasks.map((name) => [name, name.replaceAll("_", " ")])], "", fresh),
      choice("Prompt", "prompt", [["", "all"], ...prompts], "", fresh),
      choice("Noise", "noise", [["", "all"], ...noises.map((repeat) => [String(repeat), `number ${repeat + 1}`])], "", fresh),
    ].filter(Boolean));
  };
  const show = () => {
    build();
    const found = disagreements(subsetOf());
    const many = Number(state.get("many", AT_ONCE)) || AT_ONCE;
    const counts = d3.rollup(found.all, (of) => of.length, ({sort}) => sort);
    status.textContent = `${found.a.name} against ${found.b.name} on ${found.metric.label}: `
      + `${counts.get("win") ?? 0} wins, ${counts.get("tie") ?? 0} ties, ${counts.get("loss") ?? 0} losses. `
      + `${Math.min(many, found.kept.length)} of ${found.kept.length} shown`
      + (found.kept.every(found.seen) ? ", the largest disagreement first." : ", those with kept pictures first, by disagreement.");
    list.replaceChildren(...found.kept.slice(0, many).map((one) => card(one, found)));
    more.hidden = found.kept.length <= many;
  };
  view(container, show);
}

function chosen(subset) {
  const about = data.subsets.find(({name}) => name === subset) ?? data.subsets[0];
  const there = data.browser.rows.filter((row) => row.subset === subset).map(({name}) => name);
  const b = there.includes(state.get("b")) ? state.get("b") : referenceOf(about);
  const a = there.includes(state.get("a")) ? state.get("a") : there.find((name) => name !== b && name !== "base") ?? there[0];
  return {a, b, by: metrics.has(state.get("by")) ? state.get("by") : about.target};
}

function checkpoints() {
  const at = [...new Set(Object.values(data.browser.jobs).flatMap((job) => job.at.map(({fraction}) => fraction)))];
  const earlier = at.filter((fraction) => fraction > 0).sort(d3.descending).slice(1);
  return [["last", "the last"], ...earlier.map((fraction) => [String(fraction), `${d3.format("~%")(fraction)} of the budget`])];
}

function seedsOf() {
  const most = d3.greatest(data.browser.rows, ({jobs}) => jobs.length);
  return most.jobs.map((job) => data.browser.jobs[job].seed);
}

// A row's evaluation at the checkpoint and seed that are chosen; what was not trained has one.
function evaluationOf(subset, name) {
  const row = data.browser.rows.find((one) => one.subset === subset && one.name === name);
  const job = data.browser.jobs[row.jobs[Math.min(Number(state.get("seed", "0")) || 0, row.jobs.length - 1)]];
  const at = state.get("at", "last");
  const found = job.at.find(({fraction}) => String(fraction) === at || fraction === 0) ?? job.at.at(-1);
  return {name, evaluation: at === "last" ? job.at.at(-1) : found};
}

function scoresOf({evaluation}, metric) {
  const column = evaluation?.scores[metric];
  return new Map(column ? data.browser.columns[column.of].map((item, i) => [item, column.is[i]]) : []);
}

// What a metric gave a picture, in words: its score, or pass and fail where it knows no more, and what it saw.
function judged({evaluation}, metric, item) {
  const column = evaluation?.scores[metric.name];
  const place = column ? data.browser.columns[column.of].indexOf(item) : -1;
  if (place < 0) return null;
  const words = column.saw && data.browser.words[column.saw[place]];
  const binary = data.browser.binary.includes(metric.name);
  return {words, binary, score: `${metric.label} ${binary ? (column.is[place] ? "pass" : "fail") : written(metric, column.is[place])}`};
}

// The chosen score first, then what passes or fails, and what was seen there.
function verdictsOn(row, metric, item) {
  const others = data.metrics.filter(({name}) => name !== metric.name).map((other) => judged(row, other, item));
  return [judged(row, metric, item), ...others.filter((other) => other && (other.binary || other.words))].filter(Boolean);
}

function disagreements(subset) {
  const {a: first, b: second, by} = chosen(subset);
  const metric = metrics.get(by);
  const [a, b] = [evaluationOf(subset, first), evaluationOf(subset, second)];
  const [ours, theirs] = [scoresOf(a, by), scoresOf(b, by)];
  const all = [...ours.keys()].filter((item) => theirs.has(item)).map((item) => {
    const gap = ours.get(item) - theirs.get(item);
    const sort = gap === 0 ? "tie" : gap > 0 === metric.better >= 0 ? "win" : "loss";
    return {item, gap, sort};
  }).filter(({item}) => {
    const [prompt, repeat] = data.browser.items[item];
    const [set, id, , group] = data.browser.prompts[prompt];
    return (!state.get("task") || group === state.get("task")) && (!state.get("prompt") || state.get("prompt") === `${set}/${id}`)
      && (!state.get("noise") || String(repeat) === state.get("noise"));
  });
  const only = state.get("only", "all");
  const kept = all.filter(({sort}) => only === "all" || sort === only);
  const seen = ({item}) => [a, b].filter(({evaluation}) => evaluation.pictures.includes(item)).length;
  kept.sort((one, other) => seen(other) - seen(one) || Math.abs(other.gap) - Math.abs(one.gap) || one.item - other.item);
  return {a, b, metric, all, kept, seen};
}

function card({item, sort}, {a, b, metric}) {
  const [number, repeat] = data.browser.items[item];
  const [set, id, text, group] = data.browser.prompts[number];
  const word = {win: `${a.name} is ahead`, loss: `${b.name} is ahead`, tie: "tie"}[sort];
  return make("article", {class: `card ${sort}`, id: `sample-${set}-${id}-${repeat}`},
    make("h3", {}, make("bdi", {}, text)),
    make("p", {class: "soft"}, `${group.replaceAll("_", " ")}, noise ${repeat + 1}: `, make("bdi", {}, word)),
    make("div", {class: "pair"}, [a, b].map((row) => {
      const found = verdictsOn(row, metric, item);
      const said = found.map(({score, words}) => score + (words ? `, saw ${words}` : "")).join(". ");
      return make("figure", {}, picture(row, item, `${row.name}: ${text}. ${said}`),
        make("figcaption", {}, glyph(row.name), make("bdi", {}, row.name),
          found.map(({score, words}) => make("div", {}, score, words ? ", saw " : "", words ? make("bdi", {}, words) : ""))));
    })),
    make("details", {}, make("summary", {}, "Every score"), everyScore(item, a, b)),
    make("a", {class: "to-here", href: state.address("samples", {...Object.fromEntries(state.values), a: a.name, b: b.name, by: metric.name,
      prompt: `${set}/${id}`, noise: String(repeat)}), "aria-label": `Link to ${text}, noise ${repeat + 1}`}, "#"));
}

function everyScore(item, a, b) {
  const lines = data.metrics.flatMap((metric) => {
    const found = [a, b].map((row) => scoresOf(row, metric.name).get(item));
    if (found.every((score) => score === undefined)) return [];
    return [make("tr", {}, make("th", {scope: "row"}, metric.label),
      found.map((score) => make("td", {}, score === undefined ? "–" : written(metric, score))))];
  });
  return make("table", {}, make("thead", {}, make("tr", {}, make("td", {}), [a, b].map(({name}) => make("th", {scope: "col"}, name)))),
    make("tbody", {}, lines));
}

// A tile of a contact sheet, at twice its size or more. The sheet lies in a folder beside the page.
function picture({evaluation}, item, words) {
  const place = evaluation.pictures.indexOf(item);
  if (place < 0) return make("div", {class: "no-picture"}, "no picture is kept");
  const {size, sheets} = evaluation;
  const across = Math.floor(data.browser.side / size);
  const each = across * across;
  const name = sheets[Math.floor(place / each)];
  const on = place % each;
  const total = Math.min(each, evaluation.pictures.length - Math.floor(place / each) * each);
  const [columns, lines] = [Math.min(across, total), Math.ceil(total / across)];
  const source = `${data.browser.folder}/${encodeURIComponent(name)}`;
  const room = innerWidth < 700 ? 128 : 192;
  const scale = Math.max(size <= 128 ? 2 : 1, Math.floor(room / size));
  const image = make("img", {src: source, alt: words, loading: "lazy", width: columns * size * scale, height: lines * size * scale});
  image.style.transform = `translate(${-(on % across) * size * scale}px, ${-Math.floor(on / across) * size * scale}px)`;
  const frame = make("div", {class: "tile" + (size <= 128 ? " exact" : "")}, image);
  frame.style.width = frame.style.height = `${size * scale}px`;
  image.addEventListener("error", () => frame.replaceWith(make("div", {class: "no-picture"}, `${name} is not beside the page`)));
  return frame;
}
