// What the page holds, and what the reader chose. The choices lie in the address, `#section?key=value`, so that a finding
// can be sent.
const data = JSON.parse(document.getElementById("data").textContent);
const metrics = new Map(data.metrics.map((metric) => [metric.name, metric]));

const state = {
  anchor: "",
  values: new URLSearchParams(),
  listeners: [],
  read() {
    const hash = decodeURIComponent(location.hash.slice(1).split("?")[0] || "");
    this.anchor = hash;
    this.values = new URLSearchParams(location.hash.split("?").slice(1).join("?"));
  },
  get(key, otherwise = "") {
    return this.values.has(key) ? this.values.get(key) : otherwise;
  },
  list(key) {
    return this.values.getAll(key);
  },
  // A value of null takes the key out of the address; a list writes it several times.
  set(changes, anchor = this.anchor) {
    for (const [key, value] of Object.entries(changes)) {
      this.values.delete(key);
      for (const one of value === null ? [] : [value].flat()) this.values.append(key, one);
    }
    this.anchor = anchor;
    const query = this.values.toString();
    history.replaceState(null, "", "#" + encodeURIComponent(anchor) + (query ? "?" + query : ""));
    this.tell();
  },
  tell() {
    for (const listener of this.listeners) listener();
  },
  listen(listener) {
    this.listeners.push(listener);
  },
  address(anchor, values) {
    return "#" + encodeURIComponent(anchor) + "?" + new URLSearchParams(values);
  },
  go() {
    const target = this.anchor && document.getElementById(this.anchor);
    if (!target) return;
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    target.scrollIntoView();
  },
};
state.read();

// An element with attributes and children. Text is text: names and prompts are a stranger's.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

// A labelled choice that writes one key of the state. `options` are [value, text].
function choice(label, key, options, otherwise, also = {}) {
  const select = make("select", {"data-key": key, onchange: () => state.set({[key]: select.value, ...also})});
  for (const [value, text] of options) select.append(make("option", {value}, text));
  const show = () => {
    select.value = state.get(key, otherwise);
  };
  show();
  state.listen(show);
  return make("label", {}, label, " ", select);
}

function written(metric, value, sign = "") {
  return d3.format(sign + metric.format)(value);
}

function within(metric, at, sign = "") {
  if (at[1] === null) return `${written(metric, at[0], sign)} [unknown]`;  // one picture in all
  return `${written(metric, at[0], sign)} [${written(metric, at[1], sign)}, ${written(metric, at[2], sign)}]`;
}

// The row that others are held against: the reader's choice where it is there, else the subset's own.
function referenceOf(subset) {
  const chosen = state.get("ref");
  return subset.rows.some((row) => row.name === chosen) ? chosen : subset.reference;
}

