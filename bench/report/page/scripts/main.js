// Everything starts here. Without scripts the page is its tables and figures.
document.documentElement.classList.add("js");
drawRows(document.getElementById("rows"));
drawVerdicts();
drawForest(document.getElementById("forest"));
drawTradeoffs(document.getElementById("tradeoff-charts"));
drawLeaderboard(document.getElementById("board-controls"));
if (document.getElementById("dynamics-charts")) drawDynamics(document.getElementById("dynamics-charts"));
drawSamples(document.getElementById("browser"));
if (document.getElementById("power-charts")) drawPower(document.getElementById("power-charts"));

addEventListener("hashchange", () => {
  state.read();
  state.tell();
  state.go();
});
state.go();

// A print shows what is folded away, and folds it again.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open]):not(.static)")];
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of folded) one.open = false;
});

// A page of a run that goes on loads itself anew; what the reader chose lies in the address and stays.
const live = document.querySelector(".live");
if (live) setTimeout(() => location.reload(), 60000);
