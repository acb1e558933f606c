// The parts from which the page is drawn.

const SVG = "http://www.w3.org/2000/svg";

function draw(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const say = (id, ...text) => document.querySelector(`#${id} .says`).replaceChildren(...text);
const body = (id) => document.querySelector(`#${id} .body`);

/* Numbers. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

function count(value) {
  return whole.format(value).replace(/,/g, "\u202f");
}

// Three digits are enough to compare.
const digits = (value) => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)).replace(/\.0+$/, "");

function short(value) {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e4]]) {
    if (value >= size) return `${digits(value / (unit === "k" ? 1e3 : size))}${unit}`;
  }
  return count(value);
}

function bytes(value) {
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (value >= size) return `${digits(value / size)} ${unit}`;
  }
  return `${count(value)} B`;
}

function time(ns) {
  for (const [unit, size] of [["s", 1e9], ["ms", 1e6], ["µs", 1e3]]) {
    if (ns >= size) return `${digits(ns / size)} ${unit}`;
  }
  return `${count(ns)} ns`;
}

const percent = (part, all) => {
  if (!all) return "0 %";
  const value = (100 * part) / all;
  return value > 0 && value < 1 ? "< 1 %" : `${Math.round(value)} %`;
};

const PAGE = 4096;

/* The names of the corrections in the order of the decision tree, and what each corrects. */

const CORRECTIONS = [
  ["anonymous", "anonymous", "the first store to fresh memory"],
  ["zero", "frame of zeros", "the first load from fresh memory"],
  ["file", "file", "a page of a file"],
  ["swap_in", "swap-in", "a page that was evicted"],
  ["copy_on_write", "copy on write", "a store to a shared page"],
  ["first_store", "first store", "a store to a clean page of its own"],
  ["standby", "standby", "a page that was about to leave, and is used"],
  ["spurious", "spurious", "allowed by now"],
];
const TITLES = Object.fromEntries(CORRECTIONS.map(([name, title]) => [name, title]));
TITLES.refill = "already allowed";

function dot(name) {
  const mark = make("span", "dot");
  mark.style.setProperty("--c", `var(--${name})`);
  return mark;
}

function table(heads, rows) {
  const cell = (tag) => (content, index) => {
    const made = make(tag, heads[index].n ? "n" : "");
    made.append(...[content].flat().filter((part) => part !== null && part !== undefined));
    return made;
  };
  const head = make("tr", "", ...heads.map((head) => head.text).map(cell("th")));
  const lines = rows.map((row) => make("tr", "", ...row.map(cell("td"))));
  return make("div", "scroll", make("table", "", make("thead", "", head), make("tbody", "", ...lines)));
}

/* The decision: how many faults each correction answered. */

function drawDecision(data) {
  const { faults } = data.stats;
  const extra = Object.fromEntries(data.decision.map((row) => [row.correction, row]));
  const rows = CORRECTIONS.map(([name, title, why]) => ({ name, title, why, count: faults[name], seconds: extra[name].seconds }))
    .concat([{ name: "refill", title: TITLES.refill, why: "the entry was there, the host's page was not", count: extra.refill.faults, seconds: extra.refill.seconds }]);
  const total = rows.reduce((sum, row) => sum + row.count, 0);
  if (total) drawFlow(rows, total);
  sayDecision(data, rows, total);
}

// The figure: a stem of all faults, and a branch as wide as its count for each correction.
function drawFlow(rows, total) {
  const narrow = window.innerWidth < 700;
  const width = narrow ? 480 : 1000;
  const rowHeight = 40, room = 150;
  const used = rows.reduce((sum, row) => sum + Math.max(row.count > 0 ? 2 : 0, total ? (row.count / total) * room : 0), 0);
  const height = rows.length * rowHeight + 14;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, class: "flow", role: "img" });
  svg.append(draw("title", {}, `${total} faults: ${rows.filter((row) => row.count).map((row) => `${row.count} ${row.title}`).join(", ")}`));
  const left = narrow ? 92 : 150, right = narrow ? 190 : 470;
  const top = (height - used) / 2;
  svg.append(draw("rect", { x: left - 10, y: top, width: 10, height: Math.max(used, 4), rx: 3, fill: colour("soft") }));
  svg.append(draw("text", { x: left - 18, y: height / 2 - 2, "text-anchor": "end", class: "strong" }, short(total)));
  svg.append(draw("text", { x: left - 18, y: height / 2 + 15, "text-anchor": "end", class: "soft" }, "faults"));
  let from = top;
  rows.forEach((row, index) => {
    const thick = row.count ? Math.max(2, (row.count / total) * room) : 0;
    const middle = 14 + index * rowHeight + rowHeight / 2 - 7;
    const start = from + thick / 2;
    from += thick;
    const bend = (left + right) / 2;
    const mark = Math.max(6, Math.min(thick, rowHeight - 4));
    if (thick) {
      // Its width on the left is that of its count; on the right it has room for a row.
      const [high, low] = [start - thick / 2, start + thick / 2];
      const [above, below] = [middle - Math.min(thick, mark) / 2, middle + Math.min(thick, mark) / 2];
      const path = `M${left} ${high} C${bend} ${high} ${bend} ${above} ${right} ${above} V${below} C${bend} ${below} ${bend} ${low} ${left} ${low} Z`;
      svg.append(draw("path", { d: path, fill: colour(row.name), opacity: .55 }));
    }
    svg.append(draw("rect", { x: right, y: middle - mark / 2, width: 6, height: mark, rx: 2, fill: colour(row.name), opacity: row.count ? 1 : .35 }));
    const title = draw("text", { x: right + 16, y: middle - 1, class: row.count ? "strong" : "soft" }, row.title);
    svg.append(title, draw("text", { x: right + 16, y: middle + 14, class: "soft" }, row.why));
    svg.append(draw("text", { x: width - (narrow ? 4 : 110), y: middle - 1, "text-anchor": "end", class: row.count ? "strong" : "soft" }, count(row.count)));
    const share = row.count ? percent(row.count, total) : "";
    if (narrow) return;
    svg.append(draw("text", { x: width - 110, y: middle + 14, "text-anchor": "end", class: "soft" }, share));
    svg.append(draw("text", { x: width - 4, y: middle - 1, "text-anchor": "end", class: "soft" }, row.count ? time(row.seconds * 1e9) : ""));
  });
  body("decision").append(svg);
}

function sayDecision(data, rows, total) {
  const { faults } = data.stats;
  const most = rows.reduce((best, row) => (row.count > best.count ? row : best));
  const calls = data.decision.reduce((sum, row) => sum + row.in_calls, 0);
  const parts = [];
  const { takeovers, taken_over_pages: taken } = data.stats;
  if (!takeovers && !total) return say("decision", "The program fitted its limit, so the kernel answered its faults by itself; they are not counted. A report has more to say under a limit that the program does not fit.");
  if (takeovers) {
    const first = data.takeovers[0];
    const stop = data.takeovers.reduce((most, row) => Math.max(most, row.took), 0);
    const when = first ? `${takeovers > 1 ? "From" : "After"} ${time(first.seconds * 1e9)}${takeovers > 1 ? " on" : ""}, ` : "Later, ";
    const long = first ? ` That stopped ${takeovers === 1 ? "it" : "a process"} for ${takeovers === 1 ? "" : "at most "}${time(stop * 1e9)}.` : "";
    parts.push(`While the tree fitted its limit, the kernel answered faults by itself; they are not counted. ${when}pagefault took over ${count(taken)} pages of ${count(takeovers)} ${takeovers === 1 ? "process" : "processes"}.${long}`);
  }
  if (total) parts.push(`The most frequent correction is ${most.title}: ${percent(most.count, total)}.`);
  parts.push(`${count(faults.major)} faults read a page (major), ${count(faults.minor)} did not (minor).`);
  if (calls) parts.push(`${count(calls)} of these are not faults, but pages that system calls were about to use.`);
  say("decision", parts.join(" "));
}
