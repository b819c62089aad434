// Numbers in the reader's units.

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
  gib: (value) => `${significant(value)} GiB`,
};

const show = (value, unit) => (value === null || value === undefined ? NONE : FORMAT[unit](value));
const points = (value) => (value === null ? NONE : grouped(value, 2).replace("-", "−")); // rewards and values
const signed = (value) =>
  Math.abs(value) < 0.005 && value
    ? `${value > 0 ? "+" : "−"}${significant(Math.abs(value))}`
    : `${value > 0 ? "+" : ""}${points(value)}`;
const tidy = (text) => text.replaceAll(" %", "\u00a0%"); // no line break before the sign
const plural = (count, noun, many = `${noun}s`) => `${grouped(count)} ${count === 1 ? noun : many}`;

/** A value on an axis, as short as neighbours can still be distinguished. */
function brief(value, unit) {
  if (unit === "percent") return significant(Number((100 * value).toPrecision(3)));
  if (unit === "number" || unit === "gib") return significant(Number(value.toPrecision(6))).replace("-", "−");
  if (unit === "tokens" || (unit === "count" && Math.abs(value) >= 1e5))
    return value.toLocaleString("en", { notation: "compact", maximumSignificantDigits: 3 });
  if (unit !== "seconds") return FORMAT[unit](value);
  const [size, word] = [[172800, "d"], [7200, "h"], [120, "min"], [0, "s"]].find(([most]) => Math.abs(value) >= most);
  return `${significant(value / { d: 86400, h: 3600, min: 60, s: 1 }[word])} ${word}`;
}
