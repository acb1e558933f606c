// Stepping: by buttons, keys, the slider, the script's lines, and the address.

const model = JSON.parse($("data").textContent);
const { steps, states, operations } = model;
const PHASES = { call: "call", access: "access", hardware: "hardware", decision: "decision", correction: "correction", refusal: "refusal", again: "again", background: "background" };
let at = -1;
let pickedFrame = null;
let proseTouched = false;

/* The script, once. */

const rows = new Map();

function drawScript() {
  const nav = $("script");
  const byLine = new Map(operations.map((operation) => [operation.line, operation]));
  model.source.forEach((text, index) => {
    const line = index + 1;
    const operation = byLine.get(line);
    const content = make("span", "t");
    const cut = text.indexOf("#");
    const code = cut < 0 ? text : text.slice(0, cut);
    content.append(code.trimEnd());
    if (cut >= 0) content.append(code.trim() ? " " : "", make("span", "note", text.slice(cut)));
    const row = make("div", `row ${operation ? "op" : "plain"}`, make("span", "n", String(line)), content);
    if (operation) {
      const bad = /^(E[A-Z0-9]+$|SIG|oops)/.test(operation.answer);
      content.append(" ", make("span", `answer${bad ? " bad" : ""}`, `→ ${operation.answer}`));
      const dots = make("div", "dots");
      for (let step = operation.first; step < operation.first + operation.count; step += 1) {
        const dot = titled(make("button", steps[step].phase), `${steps[step].id} ${PHASES[steps[step].phase]}`);
        dot.setAttribute("aria-label", dot.title);
        dot.addEventListener("click", (event) => { event.stopPropagation(); go(step); });
        dots.append(dot);
      }
      row.append(make("span"), dots);
      dots.hidden = true;
      row.addEventListener("click", () => go(operation.first));
      rows.set(line, { row, dots, operation });
    }
    nav.append(row);
  });
}

function markScript(step) {
  for (const [line, { row, dots, operation }] of rows) {
    const isNow = line === step.line;
    row.classList.toggle("is-now", isNow);
    row.classList.toggle("is-done", line < step.line);
    dots.hidden = !isNow;
    if (!isNow) continue;
    [...dots.children].forEach((dot, index) => dot.classList.toggle("is-now", operation.first + index === at));
    const nav = $("script");
    const top = row.offsetTop - nav.offsetTop;
    if (top < nav.scrollTop || top + row.offsetHeight > nav.scrollTop + nav.clientHeight) {
      nav.scrollTop = Math.max(0, top - nav.clientHeight / 3);
    }
  }
}

/* One step. */

function put(id, content) {
  const article = $(id);
  article.hidden = content === null;
  article.querySelector(".body").replaceChildren(...(content === null ? [] : [content]));
}

// Without a decision and its results, the left column has room for the walk.
function arrange() {
  const columns = $("columns");
  const [left, right] = columns.children;
  const isAccess = ["figure", "actions", "counts"].every((id) => $(id).hidden);
  if (isAccess === columns.classList.contains("is-access")) return;
  columns.classList.toggle("is-access", isAccess);
  const moved = ["walk", "entry", "spaces"].map($);
  if (isAccess) left.append(...moved);
  else right.prepend(...moved);
}

function pick(number) {
  pickedFrame = pickedFrame === number ? null : number;
  showPicked();
}

function showPicked() {
  const frame = states[steps[at].state].frames.find((used) => used.frame === pickedFrame);
  $("picked").textContent = frame ? describe(frame) : "";
}

function go(index) {
  const next = Math.min(Math.max(index, 0), steps.length - 1);
  if (next === at) return;
  at = next;
  const step = steps[at];
  const state = states[step.state];
  const before = at > 0 ? states[steps[at - 1].state] : null;
  $("now").className = step.phase;
  $("phase").textContent = PHASES[step.phase];
  const fault = step.access && step.access.fault ? ` · fault ${step.access.fault.number}` : "";
  $("id").textContent = `step ${step.id}${fault}${step.major ? " · major" : ""}`;
  $("sentence").textContent = unbroken(step.sentence);
  $("spec").replaceChildren(...step.spec.map(chip));
  $("link").href = `#${step.id}`;
  const isFault = (step.way || []).length > 0 && !["hardware", "again"].includes(step.phase);
  put("figure", isFault ? drawFigure(step) : null);
  put("walk", ["hardware", "access", "again"].includes(step.phase) ? drawWalk(model, step) : null);
  put("entry", drawEntry(step));
  put("actions", drawActions(step));
  put("counts", drawCounts(step));
  put("spaces", drawSpaces(model, step, state));
  put("frames", drawFrames(model, state, before === state ? null : before, pick));
  put("tlbs", drawTlbs(state));
  put("caches", drawCaches(state));
  put("queues", drawQueues(state));
  arrange();
  if (!proseTouched) $("prose").open = at === 0;
  markScript(step);
  showPicked();
  $("slider").value = String(at);
  $("slider").setAttribute("aria-valuetext", `step ${step.id}, ${step.sentence}`);
  $("count").textContent = `${at + 1} / ${steps.length}`;
  for (const [id, end] of [["first", 0], ["back", 0], ["lineback", 0], ["next", steps.length - 1], ["linenext", steps.length - 1], ["last", steps.length - 1]]) {
    $(id).disabled = at === end;
  }
  history.replaceState(null, "", `#${step.id}`);
}

const lineOf = (step) => operations.findIndex((operation) => step >= operation.first && step < operation.first + operation.count);

function byLine(turn) {
  const line = lineOf(at);
  // Back goes to the start of the current line first.
  const back = turn < 0 && at > operations[line].first ? line : line + turn;
  if (operations[back]) go(operations[back].first);
  else go(turn < 0 ? 0 : steps.length - 1);
}

function fromAddress() {
  const wanted = decodeURIComponent(location.hash.slice(1));
  const found = steps.findIndex((step) => step.id === wanted);
  go(found < 0 ? Math.max(at, 0) : found);
}

function drawProse() {
  const text = model.prose.trim();
  $("prose").hidden = !text;
  const target = $("prose").querySelector("div");
  for (const paragraph of text.split(/\n\s*\n/)) {
    const p = make("p");
    for (const part of paragraph.split(/(`[^`]+`|\*\*[^*]+\*\*|\*[^*]+\*)/)) {
      if (part.startsWith("`")) p.append(make("code", "mono", part.slice(1, -1)));
      else if (part.startsWith("**")) p.append(make("strong", "", part.slice(2, -2)));
      else if (part.startsWith("*") && part.length > 1) p.append(make("em", "", part.slice(1, -1)));
      else p.append(part);
    }
    target.append(p);
  }
  // Open at the first step, unless the reader has opened or closed it.
  $("prose").querySelector("summary").addEventListener("click", () => { proseTouched = true; });
}

/* For paper: the whole story in words. */

function drawStory() {
  const story = $("print");
  story.append(make("h2", "", "The whole story"));
  for (const operation of operations) {
    story.append(make("h3", "", `${operation.line} ${operation.process}: ${operation.text} → ${operation.answer}`));
    for (const step of steps.slice(operation.first, operation.first + operation.count)) {
      story.append(make("p", "", `${step.id} ${PHASES[step.phase]}: ${step.sentence} `, dim(step.spec.join(" "))));
    }
  }
}

function start() {
  const { computer } = model;
  $("title").textContent = model.title;
  $("computer").textContent = `${computer.arch} · ${computer.levels.length} levels, pages of ${computer.page / 1024} KiB · ${computer.frames} frames · ${computer.cpus} CPU${computer.cpus === 1 ? "" : "s"}`;
  drawScript();
  drawProse();
  drawStory();
  $("slider").max = String(steps.length - 1);
  $("slider").addEventListener("input", (event) => go(Number(event.target.value)));
  const buttons = { first: () => go(0), back: () => go(at - 1), next: () => go(at + 1), last: () => go(steps.length - 1), lineback: () => byLine(-1), linenext: () => byLine(1) };
  for (const [id, action] of Object.entries(buttons)) $(id).addEventListener("click", action);
  const keys = { ArrowLeft: "back", ArrowRight: "next", " ": "next", ArrowUp: "lineback", ArrowDown: "linenext", Home: "first", End: "last", j: "next", k: "back" };
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === " " && event.target.closest("button, summary")) return;
    const name = keys[event.key];
    if (!name) return;
    event.preventDefault();
    buttons[name]();
  });
  window.addEventListener("hashchange", fromAddress);
  if (location.hash === "#check") check();
  else fromAddress();
}

/* For tests: from the first step to the last and back; what the page shows is left in the page. */

function check() {
  const errors = [];
  window.addEventListener("error", (event) => errors.push(String(event.message)));
  const seen = [];
  const all = (selector) => document.querySelectorAll(selector).length;
  const shown = () => ({
    id: steps[at].id,
    count: $("count").textContent,
    sentence: $("sentence").textContent,
    frames: all("button.frame"),
    tlb: all("tr.tlbentry"),
    cached: all("tr.cached"),
    regions: all(".region"),
    present: all(".pages .page[class*=' k-']"),
    levels: all(".level"),
    lit: all(".figure .is-lit"),
    counts: [...document.querySelectorAll("#counts td.num")].map((cell) => cell.textContent),
    free: $("frames").querySelector(".key").lastChild.textContent,
  });
  try {
    go(0);
    seen.push(shown());
    while (at < steps.length - 1 && seen.length <= steps.length) {
      $("next").click();
      seen.push(shown());
    }
    const end = at;
    const back = [];
    while (at > 0 && back.length <= end) {
      document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
      back.push(at);
    }
    if (back.length !== end || at !== 0) errors.push(`back from ${end} took ${back.length} steps`);
    // Wherever the focus is.
    for (const [place, key, wanted] of [[$("link"), "ArrowRight", 1], [$("prose").firstElementChild, "ArrowLeft", 0]]) {
      place.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
      if (at !== Math.min(wanted, steps.length - 1)) errors.push(`${key} does nothing on ${place.tagName}`);
    }
    if (JSON.stringify(shown()) !== JSON.stringify(seen[0])) errors.push("the first step looks different on the way back");
  } catch (error) {
    errors.push(String(error.stack || error));
  }
  const result = make("pre", "", JSON.stringify({ errors, seen }));
  result.id = "checked";
  document.body.append(result);
}

start();
