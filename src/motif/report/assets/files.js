// What a chart leaves on the reader's disk: its numbers as CSV, and its picture as PNG.

function download(name, type, content) {
  const link = el("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** The numbers of a chart, unrounded: a line per place on the axis, or for each count and cell. */
function csvOf({ chart, columns, axis, parts }) {
  const quoted = (cell) => (/[",\n]/.test(cell ?? "") ? `"${String(cell).replaceAll('"', '""')}"` : (cell ?? ""));
  const text = (lines) => lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  if (chart.kind === "cells") return text([["question", "step", "rate"], ...chart.rows.flatMap(({ name, cells }) => cells.map((cell) => [name, ...cell]))]);
  if (chart.kind === "bars") return text([["first step", "last step", ...parts[0].chart.levels], ...chart.bars.map((bar) => [bar.first, bar.last, ...bar.counts])]);
  const named = ({ run, name }, key) => [run, name, key === "raw" ? "" : key].filter(Boolean).join(" ");
  const heads = columns.lines.flatMap((line) => line.keys.map((key) => named(line, key)));
  return text([[AXES[axis].name, ...heads], ...columns.x.map((x, at) => [x, ...columns.lines.flatMap((line) => line.keys.map((key) => line[key][at]))])]);
}

/** A canvas with the title, the legend and the drawing of a chart. */
function pictureOf({ plot, title, element }) {
  const drawn = plot.ctx.canvas,
    px = devicePixelRatio,
    head = 56;
  const canvas = el("canvas", { width: drawn.width, height: drawn.height + head * px });
  const ctx = canvas.getContext("2d");
  ctx.fillStyle = ink("--card");
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  ctx.drawImage(drawn, 0, head * px);
  ctx.scale(px, px);
  ctx.fillStyle = ink("--ink");
  ctx.font = "600 15px system-ui, sans-serif";
  ctx.fillText(title, 12, 22);
  ctx.font = "12px system-ui, sans-serif";
  let x = 12;
  for (const item of element.querySelectorAll(".legend li")) {
    const mark = item.querySelector("svg > *");
    const style = mark && getComputedStyle(mark);
    ctx.fillStyle = style ? (mark.tagName === "line" ? style.stroke : style.fill) : ink("--soft");
    if (mark) ctx.fillRect(x, 37, 12, 8);
    ctx.fillStyle = ink("--soft");
    ctx.fillText(item.textContent, x + 18, 45);
    x += 34 + ctx.measureText(item.textContent).width;
  }
  return canvas;
}
