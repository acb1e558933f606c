// The page, drawn from its data. With `#check`, for the tests, it leaves a record of what it shows.

function drawHead(data) {
  $("command").textContent = data.command;
  const began = new Date(data.began * 1000);
  $("about").textContent = `${began.toLocaleString()} · ${digits(data.seconds)} s · limit ${bytes(data.limit_bytes)} · ${data.ended}`;
  if (data.events_lost) {
    $("lost").hidden = false;
    const one = data.events_lost === 1;
    $("lost").textContent = `${count(data.events_lost)} ${one ? "event" : "events"} came faster than they could be read, and ${one ? "is" : "are"} missing from latency, map, places and curve, which count single events. The statistics, the figure's counts and the charts over time are complete.`;
  }
  const { stats } = data;
  const faults = stats.faults.minor + stats.faults.major;
  const spent = stats.fault_time_ns.sum / 1e9;
  const back = stats.swap.reduce((sum, area) => sum + area.pages_in, 0);
  const out = stats.swap.reduce((sum, area) => sum + area.pages_out, 0);
  const numbers = [
    ["faults", count(faults), "faults corrected"],
    ["time", time(stats.fault_time_ns.sum), `in faults, summed over threads (${percent(spent, data.seconds)} of the run)`],
    ["resident", bytes(stats.peak_resident_bytes), `resident at most, of ${bytes(data.limit_bytes)}`],
    ["out", count(out), "pages went to swap"],
    ["back", count(back), "pages came back"],
    ["processes", count(stats.programs + stats.forks), `program starts (${count(stats.programs)}) and forks (${count(stats.forks)})`],
  ];
  $("numbers").append(...numbers.map(([name, value, text]) => {
    const number = make("div", "number", make("b", "", value), make("span", "", text));
    number.dataset.name = name;
    return number;
  }));
}

function drawLatency(data) {
  const { by_correction: rows, worst } = data.latency;
  const all = data.stats.fault_time_ns;
  if (!all.count) return say("latency", "No fault was timed.");
  say("latency", `Half of all faults took no more than ${time(all.median)}, 99 of a hundred no more than ${time(all.p99)}, and the longest ${time(all.max)}.`);
  const line = (row) => [[dot(row.correction), TITLES[row.correction]], count(row.count), time(row.ns.median), time(row.ns.p99), time(row.ns.max), time(row.ns.sum)];
  if (rows.length) {
    body("latency").append(table([{ text: "correction" }, { text: "faults", n: true }, { text: "median", n: true }, { text: "p99", n: true }, { text: "longest", n: true }, { text: "sum", n: true }], rows.map(line)));
  }
  if (worst.length) {
    body("latency").append(make("p", "note", "The longest:"));
    body("latency").append(table([{ text: "took", n: true }, { text: "at", n: true }, { text: "correction" }, { text: "where" }],
      worst.map((long) => [time(long.ns), `${digits(long.seconds)} s`, [dot(long.correction), TITLES[long.correction]],
        [make("code", "", long.address), make("small", "", `${long.mapping || "anonymous"} · ${long.process} ${long.pid}`)]])));
  }
}

function drawPlaces(data) {
  const { all_faults: all, in_calls: calls, top } = data.places;
  if (!top.length) return say("places", "No fault of the program's own was seen.");
  const file = (place) => (place.file ? place.file.replace(/^.*\//, "") : "memory of no file");
  const nameless = (place) => (place.offset_of === "function" ? `${file(place)}: function at ${place.offset}` : `${file(place)} + ${place.offset}`);
  const name = (place) => place.function || nameless(place);
  say("places", `${percent(top[0].faults, all)} of the faults are in `, make("code", "", name(top[0])), ".");
  const most = top[0].faults;
  const line = (place) => {
    const bar = make("span", "bar");
    bar.style.width = `${Math.max(1, (100 * place.faults) / most)}%`;
    const shown = make("code", "", name(place));
    shown.title = name(place);
    return [[shown, make("small", "", place.file || file(place)), bar], count(place.faults), percent(place.faults, all), time(place.seconds * 1e9)];
  };
  body("places").append(table([{ text: "function" }, { text: "faults", n: true }, { text: "of all", n: true }, { text: "time", n: true }], top.map(line)));
  const notes = ["A function has a name if its file has symbols: an unstripped program, an exported function, a debug file. Without symbols, the offset is where the function begins in its file, or that of the instruction (+)."];
  if (top.some((place) => !place.file && !place.function)) notes.push("Memory of no file is mostly generated code: it has names if its compiler writes /tmp/perf-PID.map (node --perf-basic-prof, java -XX:+DumpPerfMapAtExit, python -X perf).");
  if (calls) notes.push(`${count(calls)} more pages were brought for system calls.`);
  body("places").append(make("p", "note", notes.join(" ")));
}

function drawAhead(data) {
  const { from_swap: swap, fresh } = data.ahead;
  if (!swap.brought && !fresh.brought) return say("ahead", "No page was brought ahead: no run of faults proved itself.");
  say("ahead", `Ahead of need, ${count(data.stats.read_ahead)} pages were read back and ${count(data.stats.populated_ahead)} fresh pages were given. Each one that was touched saved a fault.`);
  const line = (title, { brought, used, unused }) => [title, count(brought), [count(used), make("small", "", percent(used, brought))], [count(unused), make("small", "", percent(unused, brought))], count(brought - used - unused)];
  body("ahead").append(table([{ text: "" }, { text: "brought", n: true }, { text: "used", n: true }, { text: "wasted", n: true }, { text: "unknown", n: true }],
    [line("from swap", swap), line("fresh", fresh)]));
  body("ahead").append(make("p", "note", "Used: passed by the run of faults that they were brought for, or touched by a later fault, on standby too. Loads from resident pages are invisible, so some of the others were used too. When more pages are wasted than used, read-ahead stops."));
}

function drawTable(data) {
  say("table", "As --stats prints them.");
  body("table").append(make("pre", "", data.table.replace(/^pagefault:\n/, "")));
}

function check(data) {
  const text = (selector) => (document.querySelector(selector) || {}).textContent || "";
  const seen = {
    numbers: Object.fromEntries([...document.querySelectorAll("#numbers .number")].map((number) => [number.dataset.name, number.querySelector("b").textContent])),
    flow: [...document.querySelectorAll(".flow text")].map((one) => one.textContent),
    charts: document.querySelectorAll(".uplot canvas").length,
    map: document.querySelectorAll(".heat canvas").length,
    rows: Object.fromEntries(["latency", "places", "curve", "tiers", "ahead"].map((id) => [id, document.querySelectorAll(`#${id} tbody tr`).length])),
    layers: document.querySelectorAll(".choices button").length,
    table: text("#table pre"),
    data,
  };
  const left = make("pre", "", JSON.stringify({ errors, seen }));
  left.id = "checked";
  document.body.append(left);
}

const errors = [];
window.addEventListener("error", (event) => errors.push(String(event.message)));

const data = JSON.parse($("data").textContent);
const parts = [drawHead, drawDecision, drawMemory, drawFaults, drawMap, drawPlaces, drawLatency, drawCurve, drawTiers, drawAhead, drawTable];
for (const part of parts) {
  try {
    part(data);
  } catch (error) {
    errors.push(`${part.name}: ${error.stack || error}`);
    console.error(error);
  }
}
$("save").href = URL.createObjectURL(new Blob([$("data").textContent], { type: "application/json" }));
if (location.hash === "#check") {
  for (const button of document.querySelectorAll(".choices button")) {
    // Draws each layer once. Each click makes new buttons.
    const again = [...document.querySelectorAll(".choices button")].find((one) => one.textContent === button.textContent);
    again.click();
  }
  check(data);
}
