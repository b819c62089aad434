// A chart with its title, legend, caption and table of values. It has a summary in words, and the arrow keys read single
// values. `plot.js` says how it is drawn.

const PER_RUN = new Set(["bars", "cells"]); // kinds of chart that show one run

const figures = new Set(); // the charts on the page

/** Redraws all charts in the present colours. */
function recolour() {
  inks = new Map();
  for (const figure of figures) figure.plot?.redraw(false);
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);

/** A chart of one or several runs. `update` takes new parts ({run, index, chart}), the axis, and whether there are several runs. */
class Figure {
  constructor(id) {
    this.element = el("figure", { class: "chart", id: `chart-${id}` });
    this.area = el("div", { class: "plot", tabindex: 0, role: "img" });
    this.log = el("button", { type: "button", "aria-pressed": "false", onclick: () => this.scale() }, "Log scale");
    this.values = el(
      "details",
      { class: "values" },
      el("summary", {}, "Values, scale, files"),
      el(
        "p",
        { class: "actions" },
        this.log,
        el("button", { type: "button", onclick: () => download(`${id}.csv`, "text/csv", csvOf(this)) }, "CSV"),
        el("button", { type: "button", onclick: async () => (await pictureOf(this)).toBlob((blob) => download(`${id}.png`, "image/png", blob)) }, "PNG"),
      ),
    );
    this.values.addEventListener("toggle", () => this.fillTable());
    this.place = -1;
    this.shape = "";
    this.area.addEventListener("keydown", (event) => this.key(event));
    this.area.addEventListener("blur", () => this.leave());
    this.area.addEventListener("pointerleave", () => this.leave());
    this.watch = new ResizeObserver(() => this.draw());
    this.watch.observe(this.area);
    figures.add(this);
  }

  update(parts, axis, several) {
    const shown = parts.filter(({ chart }) => !chart.missing);
    const { chart } = shown[0] ?? parts[0];
    axis = chart.own ?? axis;
    Object.assign(this, { parts: shown, chart, axis, several });
    const title = PER_RUN.has(chart.kind) && several ? `${chart.title}: ${parts[0].run.name}` : chart.title;
    const shape = JSON.stringify([title, chart.kind, axis, shown.map(({ run, index, chart }) => [run.name, index, legendNames(chart)])]);
    if (!shown.length || chart.kind === "table") {
      this.forget();
      const tables = shown.map(({ run, chart }) => [several && el("p", { class: "sub" }, run.name), numberTable(chart)]);
      const none = el("p", { class: "missing" }, chart.missing);
      this.element.replaceChildren(el("h3", {}, title), ...(shown.length ? tables.flat() : [none]).filter(Boolean), el("figcaption", {}, tidy(chart.caption)));
      return;
    }
    if (chart.kind === "cells") {
      this.grid = gridOf(shown[0], axis);
      this.words = gridWords(shown[0], this.grid);
    } else if (chart.kind === "bars") {
      this.stack = stackOf(shown[0], axis);
      this.words = stackWords(shown[0], this.stack, axis);
    } else {
      this.columns = columnsOf(shown, axis, several);
      this.words = wordsOf(shown, this.columns, axis);
    }
    if (shape !== this.shape) {
      this.forget();
      this.shape = shape;
      this.caption = el("figcaption", {});
      this.element.replaceChildren(el("h3", {}, title), legend(shown, several), this.area, this.caption, this.values);
    }
    this.log.hidden = chart.kind !== "lines" || Boolean(chart.own);
    this.title = title;
    this.describe();
    this.area.setAttribute("aria-label", summaryOf(chart, this.words, axis));
    this.fillTable();
    if (this.plot) this.plot.setData(this.table(), !this.zoomed());
    else this.draw();
  }

  forget() {
    this.plot?.destroy();
    this.plot = null;
    this.shape = "";
  }

  remove() {
    this.forget();
    this.watch.disconnect();
    figures.delete(this);
  }

  /** The data for uPlot: x, then a column per series of `options`. */
  table() {
    if (this.chart.kind === "cells") return [this.grid.x, this.grid.x.map(() => 0)];
    if (this.chart.kind === "bars") return [this.stack.x, ...[...this.stack.upTo].reverse()];
    const drawn = this.columns.lines.flatMap((line) => drawnKeys(this.chart, line).map((key) => line[key]));
    return [this.columns.x, ...(this.logarithmic ? drawn.map((values) => values.map((value) => (value > 0 ? value : null))) : drawn)];
  }

  /** Changes between a linear and a logarithmic scale. */
  scale() {
    this.logarithmic = !this.logarithmic;
    this.log.setAttribute("aria-pressed", String(this.logarithmic));
    this.plot?.destroy();
    this.plot = null;
    this.describe();
    this.draw();
  }

  /** Writes the caption, which says what a logarithmic scale leaves out. */
  describe() {
    const drawn = this.logarithmic ? this.columns.lines.flatMap((line) => drawnKeys(this.chart, line).flatMap((key) => line[key])) : [];
    const hidden = drawn.some((value) => value !== null && value !== undefined && value <= 0);
    this.caption.textContent = tidy(this.chart.caption) + (hidden ? " Values of 0 and below have no place on a log scale." : "");
  }

  draw() {
    const width = this.area.clientWidth;
    if (!width || !this.shape) return;
    if (this.plot) {
      if (this.plot.width !== width) this.plot.setSize({ width, height: HEIGHT });
      return;
    }
    this.plot = new uPlot(optionsOf(this, width), this.table(), this.area);
  }

  zoomed() {
    const { min, max } = this.plot.scales.x;
    const [low, high] = rangeX(this.plot.data[0], this.chart.kind);
    return min > low || max < high;
  }

  fillTable() {
    if (!this.values.open || !this.words) return;
    const names = [...new Set(this.words.flatMap((place) => place.rows.map((row) => row.name)))];
    const value = (place, name) => place.rows.find((row) => row.name === name)?.value ?? NONE;
    const lines = this.words
      .filter((place) => place.rows.length)
      .map((place) => [place.title, ...names.map((name) => value(place, name))]);
    this.values.querySelector(".scroll")?.remove();
    this.values.append(scrolling(`Values of ${this.chart.title}`, plainTable([AXES[this.axis].name, ...names], lines)));
  }

  // -- reading values --

  key(event) {
    const there = this.words.flatMap((place, at) => (place.rows.length ? [at] : []));
    const now = there.indexOf(this.place);
    const target = {
      ArrowRight: there[Math.min(there.length - 1, now + 1)],
      ArrowLeft: there[Math.max(0, now - 1)],
      Home: there[0],
      End: there[there.length - 1],
    }[event.key];
    if (event.key === "Escape") this.leave();
    if (target === undefined) return;
    event.preventDefault();
    this.pick(target);
    const { title, rows } = this.words[target];
    announce(`${title}: ${rows.map((row) => `${row.name} ${row.value}`).join(", ")}`);
  }

  pick(at) {
    const place = this.words[at];
    if (!this.plot || !place?.rows.length) return this.leave();
    this.place = at;
    const left = this.plot.valToPos(place.x, "x");
    if (Math.abs(this.plot.cursor.left - left) > 0.5) this.plot.setCursor({ left, top: 0 }, false);
    const box = this.plot.over.getBoundingClientRect();
    showTip(tipContent(place), box.left + left, box.top);
  }

  /** After a move of the pointer: select the nearest place with values. */
  point(plot) {
    if (plot.cursor.left < 0 || !this.area.matches(":hover")) return;
    const x = plot.posToVal(plot.cursor.left, "x");
    let nearest = -1;
    this.words.forEach((place, at) => {
      if (place.rows.length && (nearest < 0 || Math.abs(place.x - x) < Math.abs(this.words[nearest].x - x))) nearest = at;
    });
    if (nearest >= 0) this.pick(nearest);
  }

  leave() {
    this.place = -1;
    this.plot?.setCursor({ left: -10, top: -10 }, false);
    hideTip();
  }
}

const numberTable = ({ head, rows }) => plainTable(head, rows, "numbers");
