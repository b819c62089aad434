// What a chart leaves on the reader's disk: its numbers as CSV, and its picture as PNG.

function download(name, type, content) {
  const link = el("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** The numbers of a chart, with the six digits that the page has: a line per place on the axis, or for each count and cell. */
function csvOf({ chart, columns, axis, parts }) {
  const quoted = (cell) => (/[",\n]/.test(cell ?? "") ? `"${String(cell).replaceAll('"', '""')}"` : (cell ?? ""));
  const text = (lines) => lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  if (chart.kind === "cells") return text([["question", "step", "rate"], ...chart.rows.flatMap(({ name, cells }) => cells.map((cell) => [name, ...cell]))]);
  if (chart.kind === "bars") return text([["first step", "last step", ...parts[0].chart.levels], ...chart.bars.map((bar) => [bar.first, bar.last, ...bar.counts])]);
  const named = ({ run, name }, key) => [run, name, key === "raw" ? "" : key].filter(Boolean).join(" ");
  const heads = columns.lines.flatMap((line) => line.keys.map((key) => named(line, key)));
  return text([[AXES[axis].name, ...heads], ...columns.x.map((x, at) => [x, ...columns.lines.flatMap((line) => line.keys.map((key) => line[key][at]))])]);
}

const PICTURE = { width: 960, height: 400, edge: 12 };

/** A canvas with the title, the legend and the drawing of a chart, in a size of its own and not that of the screen. */
async function pictureOf(figure) {
  const { width, height, edge } = PICTURE;
  const plot = new uPlot(optionsOf(figure, width, height), figure.table(), el("div"));
  if (figure.zoomed()) plot.setScale("x", figure.plot.scales.x);
  await new Promise((drawn) => setTimeout(drawn)); // uPlot draws when whoever asked for it is done
  const px = devicePixelRatio;
  const canvas = el("canvas");
  const ctx = canvas.getContext("2d");
  const [marks, head] = legendPlaces(ctx, figure.element.querySelectorAll(".legend li"), width - edge);
  canvas.width = width * px;
  canvas.height = (head + height) * px;
  ctx.fillStyle = ink("--card");
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  ctx.drawImage(plot.ctx.canvas, 0, head * px);
  ctx.scale(px, px);
  ctx.fillStyle = ink("--ink");
  ctx.font = "600 15px system-ui, sans-serif";
  ctx.fillText(figure.title, edge, 22);
  ctx.font = LEGEND_FONT;
  for (const { item, x, y, sample } of marks) {
    drawSample(ctx, item.querySelector("svg"), x, y - 10);
    ctx.fillStyle = ink("--soft");
    ctx.fillText(item.textContent, x + sample, y);
  }
  plot.destroy();
  return canvas;
}

const LEGEND_FONT = "12px system-ui, sans-serif";

/** Where the items of a legend stand below the title, in as many lines as they need, and where the drawing begins. */
function legendPlaces(ctx, items, right) {
  ctx.font = LEGEND_FONT;
  let x = PICTURE.edge,
    y = 45;
  const places = [...items].map((item) => {
    const sample = Number(item.querySelector("svg")?.getAttribute("width") ?? -6) + 6;
    const wide = sample + ctx.measureText(item.textContent).width;
    if (x + wide > right && x > PICTURE.edge) (x = PICTURE.edge), (y += 20);
    const place = { item, x, y, sample };
    x += wide + 18;
    return place;
  });
  return [places, y + 11];
}

/** The sample of a line, or of a level, as the legend has it. */
function drawSample(ctx, picture, x, y) {
  ctx.save();
  ctx.translate(x, y);
  for (const part of picture?.children ?? []) {
    const { stroke, fill } = getComputedStyle(part);
    const at = (name) => Number(part.getAttribute(name));
    ctx.beginPath();
    ctx.fillStyle = fill;
    if (part.tagName === "line") {
      ctx.strokeStyle = stroke;
      ctx.lineWidth = 2;
      ctx.setLineDash((part.getAttribute("stroke-dasharray") ?? "").split(" ").filter(Boolean).map(Number));
      ctx.moveTo(at("x1"), at("y1"));
      ctx.lineTo(at("x2"), at("y2"));
      ctx.stroke();
    } else if (part.tagName === "path") ctx.fill(new Path2D(part.getAttribute("d")));
    else if (part.tagName === "circle") ctx.arc(at("cx"), at("cy"), at("r"), 0, 2 * Math.PI), ctx.fill();
    else ctx.fillRect(at("x"), at("y"), at("width"), at("height"));
  }
  ctx.restore();
}
