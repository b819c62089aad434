"use strict";
// Small helpers. Texts of a run reach the page through textContent alone, never as markup.

window.addEventListener("error", (event) => {
  document.documentElement.dataset.error = String(event.message);
});

const SVG = document.querySelector("svg").namespaceURI;

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

/** Says something to screen readers. */
function announce(text) {
  document.getElementById("live").textContent = text;
}

// -- numbers ----------------------------------------------------------------------------------------------

const NONE = "–";
const grouped = (value, digits = 0) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

const tenTo = (power) =>
  `10${String(power).replace(/./g, (sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)])}`;

function scientific(value, digits) {
  const [head, power] = value.toExponential(digits).split("e");
  return `${head} × ${tenTo(Number(power))}`;
}

function significant(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return grouped(value);
  if (size < 0.001) return scientific(value, 1);
  return value.toLocaleString("en", { maximumSignificantDigits: 3 });
}

function scaled(value, units) {
  for (const [size, unit] of units)
    if (Math.abs(value) >= size) return `${significant(value / size)} ${unit}`;
  return significant(value);
}

function duration(seconds) {
  if (seconds < 60) return `${significant(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 2880) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.round((minutes % 1440) / 60)} h`;
}

const MANY = [
  [1e12, "trillion"],
  [1e9, "billion"],
  [1e6, "million"],
];
const FLOPS = [
  [1e21, "ZFLOP"],
  [1e18, "EFLOP"],
  [1e15, "PFLOP"],
  [1e12, "TFLOP"],
  [1e9, "GFLOP"],
];

/** Prints a value in the reader's units. */
const FORMAT = {
  number: significant,
  percent: (value) => `${grouped(100 * value, 1)} %`,
  count: (value) => (Math.abs(value) >= 100 || Number.isInteger(value) ? grouped(value) : significant(value)),
  tokens: (value) => scaled(value, MANY),
  flops: (value) => scaled(value, FLOPS),
  seconds: duration,
};

const show = (value, unit) => (value === null || value === undefined ? NONE : FORMAT[unit](value));
const points = (value) => (value === null ? NONE : grouped(value, 2).replace("-", "−")); // rewards and values
const signed = (value) =>
  Math.abs(value) < 0.005 && value
    ? `${value > 0 ? "+" : "−"}${significant(Math.abs(value))}`
    : `${value > 0 ? "+" : ""}${points(value)}`;
const tidy = (text) => text.replaceAll(" %", "\u00a0%"); // no line break before the sign
const plural = (count, noun, many = `${noun}s`) => `${grouped(count)} ${count === 1 ? noun : many}`;
