// Charts are drawn when they come near the window, again when the reader chooses, and all of them before a print.
const pending = new Map();
const nearby = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) pending.get(entry.target)?.();
}, {rootMargin: "600px"});

function view(element, draw) {
  let drawn = false;
  const now = () => {
    pending.delete(element);
    drawn = true;
    draw();
  };
  pending.set(element, now);
  nearby.observe(element);
  state.listen(() => drawn && draw());
  let width = innerWidth;
  addEventListener("resize", () => {
    if (drawn && width !== innerWidth) draw();
    width = innerWidth;
  });
}

addEventListener("beforeprint", () => {
  for (const draw of [...pending.values()]) draw();
});

// One panel: a title, a drawing of Plot, and what it says in words for readers who do not see it.
function panel(title, words, options) {
  const svg = Plot.plot({
    style: {background: "none", color: "inherit", fontFamily: "inherit", fontSize: "12px", overflow: "visible"},
    ...options,
  });
  // The drawing is one picture with one text: what Plot names inside it has no role of its own.
  for (const inner of svg.querySelectorAll("[aria-label]")) inner.removeAttribute("aria-label");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", words);
  return make("figure", {class: "panel"}, make("figcaption", {}, title), svg);
}

function panelWidth(container, most = 460) {
  const room = container.clientWidth || 400;
  return Math.max(280, Math.min(most, room - 8));
}

function listed(words) {
  return words.length < 2 ? words.join("") : words.slice(0, -1).join(", ") + " and " + words.at(-1);
}

// "a and b better; c worse; others not told apart", of rows with intervals.
function inWords(metric, found) {
  const sure = (sign) => found.filter(({at}) => (sign > 0 ? at[1] > 0 : at[2] < 0)).map(({name}) => name);
  const [up, down] = [sure(1), sure(-1)];
  const [high, low] = metric.better === 0 ? ["higher", "lower"] : metric.better > 0 ? ["better", "worse"] : ["worse", "better"];
  const parts = [];
  if (up.length) parts.push(`${high}: ${listed(up)}`);
  if (down.length) parts.push(`${low}: ${listed(down)}`);
  const rest = found.length - up.length - down.length;
  if (rest) parts.push(`not told apart: ${rest} of ${found.length}`);
  return parts.join("; ");
}
