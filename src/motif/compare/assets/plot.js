// Shared by the drawings of a study: margins, ticks, marks, and reading values with pointer and arrow keys.

const MARGIN = { top: 10, right: 10, bottom: 40, left: 58 };
const firstDraws = []; // called when the page is complete and widths are known

function marker(index, x, y) {
  if (index % 3 === 1) return svg("rect", { x: x - 3.5, y: y - 3.5, width: 7, height: 7, class: "point" });
  if (index % 3 === 2) return svg("path", { d: `M${x} ${y - 5}l5 5l-5 5l-5 -5z`, class: "point" });
  return svg("circle", { cx: x, cy: y, r: 4, class: "point" });
}

function ticks(low, high, about) {
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const found = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index++) {
    found.push(Number((index * step).toPrecision(12)));
  }
  return found;
}

function interact(plot, columns, width, height) {
  const guide = svg("line", {
    y1: MARGIN.top,
    y2: height - MARGIN.bottom,
    class: "guide",
    visibility: "hidden",
  });
  plot.append(guide);
  let current = -1;
  const pick = (index) => {
    current = index;
    const column = columns[index];
    guide.setAttribute("x1", column.x);
    guide.setAttribute("x2", column.x);
    guide.setAttribute("visibility", "visible");
    const box = plot.getBoundingClientRect();
    showTip(tipContent(column), box.left + column.x * (box.width / width), box.top + MARGIN.top);
  };
  const leave = () => {
    guide.setAttribute("visibility", "hidden");
    hideTip();
  };
  plot.addEventListener("pointermove", (event) => {
    const x = event.clientX - plot.getBoundingClientRect().left;
    let nearest = 0;
    columns.forEach((column, index) => {
      if (Math.abs(column.x - x) < Math.abs(columns[nearest].x - x)) nearest = index;
    });
    pick(nearest);
  });
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("blur", leave);
  plot.addEventListener("keydown", (event) => {
    const last = columns.length - 1;
    const target = {
      ArrowRight: Math.min(last, current + 1),
      ArrowLeft: Math.max(0, current - 1),
      Home: 0,
      End: last,
    }[event.key];
    if (event.key === "Escape") leave();
    if (target === undefined) return;
    event.preventDefault();
    pick(target);
    announce(
      `${columns[target].title}: ${columns[target].rows.map((row) => `${row.name} ${row.value}`).join(", ")}`,
    );
  });
}
