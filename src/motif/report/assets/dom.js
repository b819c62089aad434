"use strict";
// Small helpers. Texts of a run reach the page through textContent only, never as markup.

window.addEventListener("error", (event) => {
  document.documentElement.dataset.error = String(event.message);
});

const SVG = "http://www.w3.org/2000/svg"; // a name, not an address: nothing is fetched

/** An element with attributes and children; strings become text nodes, null and false are left out. */
function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") Object.assign(node.style, value);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child.nodeType ? child : document.createTextNode(String(child)));
  }
  return node;
}

/** Announces a text to screen readers. */
function announce(text) {
  document.getElementById("live").textContent = text;
}

/** A table of texts or nodes; the first cell of a line names it. */
function plainTable(heads, lines, name = "") {
  return el(
    "table",
    { class: name },
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
    el(
      "tbody",
      {},
      lines.map(([first, ...cells]) =>
        el("tr", {}, el("th", { scope: "row" }, first), cells.map((cell) => el("td", {}, cell ?? NONE))),
      ),
    ),
  );
}

/** A wide element that scrolls by itself, also with the keyboard. */
const scrolling = (name, ...content) =>
  el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name }, content);

// -- the page ---------------------------------------------------------------------------------------------

const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");

/** Adds a section with its heading and returns it. */
function section(id, title, lead, ...content) {
  const made = el(
    "section",
    { id, "aria-labelledby": `${id}-title` },
    el("h2", { id: `${id}-title` }, title),
    lead && el("p", { class: "lead" }, lead),
    ...content,
  );
  main.append(made);
  return made;
}

/** Links to all sections. */
function navigation() {
  document
    .getElementById("nav")
    .replaceChildren(
      ...[...main.querySelectorAll("section[id]")].map((part) =>
        el("a", { href: `#${part.id}` }, part.querySelector("h2").textContent),
      ),
    );
}
