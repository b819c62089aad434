// The tooltip: a box with values beside the pointer.

function tipContent(column) {
  return [
    el("strong", {}, column.title),
    el(
      "dl",
      {},
      column.rows.map((row) => [el("dt", {}, row.name), el("dd", {}, row.value)]),
    ),
  ];
}

function showTip(content, x, y) {
  const tip = document.getElementById("tip");
  tip.replaceChildren(...content);
  tip.hidden = false;
  const left = x + 14 + tip.offsetWidth > innerWidth ? x - 14 - tip.offsetWidth : x + 14;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(y, innerHeight - tip.offsetHeight - 4))}px`;
}

window.addEventListener("scroll", () => hideTip(), { passive: true });

function hideTip() {
  document.getElementById("tip").hidden = true;
}
