// Charts over time, the map and the curve.

const charts = [];
// Memory is in powers of two, and so are its ticks.
const POWERS = Array.from({ length: 50 }, (_, power) => 2 ** power);

// A chart that follows its card's width.
function chart(into, options, data) {
  const place = make("div", "chart");
  into.append(place);
  const axis = { stroke: colour("soft"), grid: { stroke: colour("faint"), width: 1 }, ticks: { stroke: colour("line"), width: 1 } };
  const made = new uPlot({
    width: Math.max(place.clientWidth, 200),
    height: options.height || 210,
    cursor: { sync: { key: options.sync }, drag: { x: true, y: false } },
    scales: { x: { time: false, ...options.x }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.06 : 1] } },
    axes: [
      { ...axis, ...(options.xLabel ? { space: 90, incrs: POWERS } : {}), values: (_, ticks) => ticks.map(options.xLabel || ((tick) => `${tick} s`)) },
      { ...axis, ...(options.binary ? { incrs: POWERS } : {}), size: 72, values: (_, ticks) => ticks.map(options.label) },
    ],
    series: [{ label: options.xName || "at", value: (_, value) => (value === null ? "" : (options.xLabel || ((tick) => `${digits(tick)} s`))(value)) },
      ...options.series.map((series) => ({
        width: 1.5, points: { show: false }, value: (_, value) => (value === null ? "" : options.label(value)), ...series,
      }))],
    bands: options.bands,
    hooks: options.hooks,
  }, data, place);
  charts.push([made, place, options.height || 210]);
}

let settling = 0;
window.addEventListener("resize", () => {
  clearTimeout(settling);
  settling = setTimeout(() => {
    for (const [made, place, height] of charts) made.setSize({ width: Math.max(place.clientWidth, 200), height });
  }, 120);
});

// Stacked series: each is the sum of itself and those below.
function stacked(parts) {
  const sums = [];
  parts.forEach((part, index) => {
    sums.push(part.map((value, at) => value + (index ? sums[index - 1][at] : 0)));
  });
  return sums.reverse();
}

function drawMemory(data) {
  const { seconds, processes } = data.time;
  const areas = data.time.areas.map((area) => area.stored_bytes);
  const sum = (of) => seconds.map((_, at) => processes.reduce((all, process) => all + process[of][at], 0));
  const resident = data.time.charged_bytes, swapped = sum("swapped_bytes");
  const most = Math.max(0, ...resident.map((value, at) => value + swapped[at]));
  say("memory", `At its largest the program had ${bytes(most)}; at most ${bytes(data.stats.peak_resident_bytes)} of them were resident, under a limit of ${bytes(data.limit_bytes)}.`);
  const fill = (name) => ({ stroke: colour(name), fill: `${colour(name)}55` });
  const names = ["resident", ...data.time.areas.map((area) => `in ${area.name}`)];
  const parts = [resident, ...areas];
  const shades = ["p0", "p4", "p1", "p3", "p5", "p6", "p2", "p7", "p7"];
  const series = names.map((name, index) => ({ label: name, ...fill(shades[index]), value: (_, __, ___, at) => (at === null || at === undefined ? "" : bytes(parts[index][at])) })).reverse();
  const limit = seconds.map(() => data.limit_bytes);
  chart(body("memory"), { sync: "time", label: bytes, binary: true, series: [...series, { label: "limit", stroke: colour("soft"), dash: [4, 4], width: 1 }] },
    [seconds, ...stacked(parts), limit]);
  if (processes.length > 1) {
    body("memory").append(make("p", "note", "By process, resident and swapped:"));
    const sizes = processes.map((process) => process.resident_bytes.map((value, at) => value + process.swapped_bytes[at]));
    chart(body("memory"), {
      sync: "time", height: 170, label: bytes, binary: true,
      series: processes.map((process, index) => ({ label: process.pid ? `${process.name} ${process.pid}` : process.name, stroke: colour(`p${index}`) })),
    }, [seconds, ...sizes]);
  }
}

function drawFaults(data) {
  const shown = CORRECTIONS.filter(([name]) => data.time.faults[name].some((rate) => rate > 0));
  const peak = Math.max(0, ...data.time.seconds.map((_, at) => shown.reduce((sum, [name]) => sum + data.time.faults[name][at], 0)));
  const { faults } = data.stats;
  say("faults", `${short((faults.minor + faults.major) / Math.max(data.seconds, 1e-3))} a second on average, ${short(peak)} at the busiest.`);
  if (!shown.length) return body("faults").append(make("p", "empty", "There were none."));
  chart(body("faults"), {
    sync: "time", label: short,
    series: shown.map(([name, title]) => ({ label: title, stroke: colour(name) })),
  }, [data.time.seconds, ...shown.map(([name]) => data.time.faults[name])]);
}

function drawTiers(data) {
  const areas = data.time.areas;
  const rows = areas.map((area, index) => {
    const { pages_out, pages_in } = data.stats.swap[index];
    const most = Math.max(0, ...area.stored_bytes);
    const rate = (rates) => `${bytes(Math.max(0, ...rates) * PAGE)}/s`;
    return [make("code", "", area.name), bytes(most), count(pages_out), count(pages_in), rate(area.pages_out), rate(area.pages_in)];
  });
  const ratio = data.stats.compression_ratio;
  const out = data.stats.swap.reduce((sum, area) => sum + area.pages_out, 0);
  say("tiers", out ? `${bytes(out * PAGE)} went out${ratio ? `; a byte of compressed RAM held ${digits(ratio)} bytes of pages` : ""}.` : "No page was evicted to swap: the program fits.");
  if (!out) return;
  body("tiers").append(table([{ text: "area" }, { text: "held at most", n: true }, { text: "pages out", n: true }, { text: "pages in", n: true }, { text: "out, peak", n: true }, { text: "in, peak", n: true }], rows));
  const used = areas.map((area, index) => [area, index]).filter(([, index]) => data.stats.swap[index].pages_out > 0);
  const series = used.flatMap(([area, index]) => [
    { label: `to ${area.name}`, stroke: colour(`p${(index * 2 + 1) % 8}`) },
    { label: `from ${area.name}`, stroke: colour(`p${(index * 2) % 8}`) },
  ]);
  const rates = used.flatMap(([area]) => [area.pages_out, area.pages_in].map((rates) => rates.map((rate) => rate * PAGE)));
  chart(body("tiers"), { sync: "time", height: 180, binary: true, label: (value) => `${bytes(value)}/s`, series }, [data.time.seconds, ...rates]);
}

function drawCurve(data) {
  const { points, half, pages_back: back } = data.curve;
  if (!points.length || !back) {
    say("curve", "No page came back from swap, so more memory would not have saved a read.");
    return;
  }
  const at = (part) => points.find((point) => Math.abs(point.limit_bytes - data.limit_bytes * part) < PAGE * 2);
  const twice = at(2);
  const saved = twice ? percent(back - twice.pages_back, back) : "?";
  say("curve", `With twice the memory, ${saved} of the ${count(back)} pages that were read back would have stayed.`);
  const swapIn = data.decision.find((row) => row.correction === "swap_in");
  const cost = swapIn.faults ? swapIn.seconds / swapIn.faults : 0;
  const perPage = data.stats.faults.swap_in ? (cost * data.stats.faults.swap_in) / back : 0;
  const row = (name, point, note) => [[name, note ? make("small", "", note) : null], bytes(point.limit_bytes), count(point.pages_back), perPage ? time(point.pages_back * perPage * 1e9) : "–"];
  const rows = [
    half ? row("half", half, "extrapolated: about this, or more") : ["half", bytes(data.limit_bytes / 2), `≥ ${count(back)}`, "–"],
    row("as it was", points[0]), ...[[1.5, "half as much again"], [2, "twice"], [4, "four times"]].filter(([part]) => at(part)).map(([part, name]) => row(name, at(part))),
  ];
  body("curve").append(table([{ text: "memory" }, { text: "limit", n: true }, { text: "pages read back", n: true }, { text: "time in swap-in", n: true }], rows));
  const x = [...(half ? [half.limit_bytes] : []), ...points.map((point) => point.limit_bytes)];
  const seen = [...(half ? [null] : []), ...points.map((point) => point.pages_back)];
  const guessed = x.map((limit, index) => (half && index < 2 ? [half.pages_back, points[0].pages_back][index] : null));
  chart(body("curve"), {
    height: 190, label: short, xLabel: bytes, xName: "limit", sync: "curve",
    series: [{ label: "pages read back", stroke: colour("p1"), fill: `${colour("p1")}33`, points: { show: true, size: 4 } }, { label: "extrapolated", stroke: colour("p1"), dash: [4, 4] }],
  }, [x, seen, guessed]);
  body("curve").append(make("p", "note", "An estimate. The distance of a page that comes back is the number of pages that left after it and are still out: with that many more frames, LRU would have kept it. Pages are sampled by a hash. Accesses to resident pages are invisible, so below the limit the curve continues by its own slope."));
}

/* The map. */

const LAYERS = [
  ["back", "came back", "swap_in", "pages that came back from swap: what is hot, and does not fit"],
  ["fresh", "fresh", "anonymous", "pages touched for the first time"],
  ["out", "left", "first_store", "pages evicted"],
  ["gone", "never came back", "copy_on_write", "pages evicted that had not come back by the end"],
];

// Pages that never came back, at the moments when they left: the last ones out.
function gone(row) {
  let back = row.back.reduce((sum, value) => sum + value, 0);
  return row.out.map((value) => {
    const stays = Math.max(0, value - back);
    back = Math.max(0, back - value);
    return stays;
  });
}

function drawMap(data) {
  const { processes } = data.maps;
  if (!processes.length) return say("map", "No page came or went.");
  let process = processes[0], layer = LAYERS[0];
  const has = (name) => processes.some((one) => one.rows.some((row) => row[name].some((value) => value)));
  if (!has("back")) layer = LAYERS[1];
  const pick = make("div", "choices");
  const heat = make("div", "heat");
  const canvas = make("canvas");
  const tip = make("div", "tip");
  tip.hidden = true;
  heat.append(canvas, tip);
  const scale = make("div", "scale");
  body("map").append(pick, heat, scale);
  let hit = () => null;
  const show = () => {
    const choice = (text, chosen, act, title) => {
      const button = make("button", "", text);
      button.type = "button";
      if (title) button.title = title;
      button.setAttribute("aria-pressed", String(chosen));
      button.addEventListener("click", () => { act(); show(); });
      return button;
    };
    const layers = LAYERS.map((one) => choice(one[1], one === layer, () => { layer = one; }, one[3]));
    const names = processes.length > 1 ? processes.map((one) => choice(`${one.name} ${one.pid}`, one === process, () => { process = one; })) : [];
    pick.replaceChildren(...layers, ...(names.length ? [make("span", "gap"), ...names] : []));
    hit = paint(canvas, scale, data, process, layer);
  };
  canvas.addEventListener("mousemove", (event) => {
    const found = hit(event.offsetX, event.offsetY);
    tip.hidden = !found;
    if (!found) return;
    tip.replaceChildren(...found);
    tip.style.left = `${Math.min(event.offsetX + 14, heat.clientWidth - 230)}px`;
    tip.style.top = `${event.offsetY + 14}px`;
  });
  canvas.addEventListener("mouseleave", () => { tip.hidden = true; });
  window.addEventListener("resize", () => { clearTimeout(show.wait); show.wait = setTimeout(show, 140); });
  show();
  const rows = processes.flatMap((one) => one.rows);
  const total = (name) => rows.reduce((sum, row) => sum + row[name].reduce((a, b) => a + b, 0), 0);
  const never = rows.reduce((sum, row) => sum + gone(row).reduce((a, b) => a + b, 0), 0);
  const left = total("out");
  const busy = [...new Set(rows.map((row) => row.name))].map((name) => [name, rows.filter((row) => row.name === name).reduce((sum, row) => sum + row.back.reduce((a, b) => a + b, 0), 0)]).sort((a, b) => b[1] - a[1])[0];
  const parts = [`Addresses upwards, time to the right.`];
  if (busy && busy[1]) parts.push(`${percent(busy[1], total("back"))} of the pages that came back are in ${busy[0] === "anonymous" ? "anonymous mappings" : busy[0]}.`);
  if (left) parts.push(`${percent(never, left)} of the ${count(left)} evictions were final: the page never came back.`);
  if (data.maps.left_out) parts.push(`${data.maps.left_out} more processes are not shown.`);
  say("map", parts.join(" "));
}

// Draws one layer of one process. Returns a function that describes a point.
function paint(canvas, scale, data, process, [name, title, shade, why]) {
  const rows = process.rows.map((row) => ({ ...row, values: name === "gone" ? gone(row) : row[name] })).reverse();
  const columns = Math.max(1, Math.ceil(data.seconds / process.column_seconds), ...rows.map((row) => row.values.length));
  const width = canvas.parentElement.clientWidth;
  const gutter = width < 560 ? 84 : 190;
  const rowHeight = Math.max(3, Math.min(14, Math.floor(420 / Math.max(1, rows.length))));
  const gap = 5;
  // A gap where addresses are missing between two rows.
  let y = 0;
  const tops = rows.map((row, index) => {
    if (index && rows[index - 1].from !== row.to) y += gap;
    const top = y;
    y += rowHeight;
    return top;
  });
  const bottom = 22, height = y + bottom;
  const dense = window.devicePixelRatio || 1;
  canvas.width = width * dense;
  canvas.height = height * dense;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.scale(dense, dense);
  const most = rows.reduce((most, row) => row.values.reduce((a, b) => Math.max(a, b), most), 0);
  const cell = (width - gutter) / columns;
  const strength = (value) => .12 + .88 * Math.log1p(value) / Math.log1p(most);
  rows.forEach((row, index) => {
    pen.globalAlpha = 1;
    pen.fillStyle = colour("faint");
    pen.fillRect(gutter, tops[index], width - gutter, rowHeight - (rowHeight > 5 ? 1 : 0));
    pen.fillStyle = colour(shade);
    row.values.forEach((value, column) => {
      if (!value) return;
      pen.globalAlpha = strength(value);
      pen.fillRect(gutter + column * cell, tops[index], Math.max(cell, 1), rowHeight - (rowHeight > 5 ? 1 : 0));
    });
  });
  pen.globalAlpha = 1;
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  let free = -Infinity;
  rows.forEach((row, index) => {
    const first = !index || rows[index - 1].name !== row.name || rows[index - 1].from !== row.to;
    const middle = tops[index] + rowHeight / 2;
    if (!first || middle - free < 13) return;
    free = Math.max(middle, 7);
    let text = row.name.replace(/^.*\//, "");
    if (row.name === "anonymous" && gutter > 100) text = `anonymous ${row.to}`;
    pen.fillStyle = colour("soft");
    pen.textAlign = "right";
    pen.fillText(text, gutter - 8, Math.max(middle, 7), gutter - 10);
  });
  pen.textAlign = "center";
  const step = [.1, .2, .5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600].find((step) => (columns * process.column_seconds) / step <= Math.max(4, width / 110)) || 1200;
  for (let tick = 0; tick <= columns * process.column_seconds; tick += step) {
    const x = gutter + (tick / process.column_seconds) * cell;
    if (x < width - 12) pen.fillText(`${digits(tick)} s`, Math.max(x, gutter + 8), height - 9);
  }
  const ramp = make("i");
  ramp.style.background = `linear-gradient(to right, ${colour("faint")}, ${colour(shade)})`;
  scale.replaceChildren("0", ramp, `${count(most)} pages a row in ${digits(process.column_seconds)} s`, make("span", "", `· ${title}: ${why}`));
  return (x, top) => {
    const index = tops.findIndex((start) => top >= start && top < start + rowHeight);
    const column = Math.floor((x - gutter) / cell);
    if (index < 0 || column < 0) return null;
    const row = rows[index];
    const at = (of) => count(row[of][column] || 0);
    const begin = column * process.column_seconds;
    return [make("code", "", `${row.from}–${row.to}`), make("div", "", row.name),
      make("div", "", `${digits(begin)} to ${digits(begin + process.column_seconds)} s: ${at("fresh")} fresh, ${at("back")} back, ${at("out")} left`)];
  };
}
