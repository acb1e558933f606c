// Drawing one step.

const titled = (element, title) => { element.title = title; return element; };
// Rights such as r-- are one word.
const unbroken = (text) => text.replace(/(?<![\w-])[r-][w-][x-](?![\w-])/g, (rights) => rights.replace(/-/g, "\u2011"));
const chip = (text) => make("span", "chip", text);
const dim = (text) => make("span", "dim", text);

/* The figure: its boxes by name. */

const QUESTIONS = [
  ["kernel", "A kernel address?", "sync", "copied"],
  ["reserved", "A reserved bit set in a table?", "corrupt", "corrupt"],
  ["sleep", "An address space, and may we sleep?", null, null],
  ["region", "A region, or a stack that may grow?", null, null],
  ["access", "Does the region allow the access?", null, null],
  ["entry", "What does the page's entry say?", "bus", "SIGBUS"],
];

const CASES = [
  ["zero", "frame of zeros", "nothing, no file"],
  ["anonymous", "anonymous", "nothing, no file"],
  ["file", "file", "nothing, a file"],
  ["device", "device", "nothing, a device"],
  ["nonlinear", "nonlinear", "a place in the file"],
  ["swap_in", "swap-in", "a swap slot"],
  ["copy_on_write", "copy on write", "read-only, shared"],
  ["reuse", "reuse", "read-only, own"],
  ["standby", "standby", "no rights, on its way out"],
  ["spurious", "spurious", "allowed by now"],
  ["oom", "out of memory", "no frame left"],
];

function drawFigure(step) {
  const lit = new Set(step.way || []);
  const figure = make("div", "figure");
  const box = (name, classes, ...children) =>
    make("div", `box ${classes}${lit.has(name) ? " is-lit" : ""}`, ...children);
  const asked = (name) => (step.questions || []).filter((question) => question.node === name);
  const start = make("div", "ask", box("machine", "q", "The processor reports a fault"));
  figure.append(start);
  for (const [name, text, exit, exitText] of QUESTIONS) {
    const answers = asked(name);
    const question = box(name, "q", text);
    for (const answer of answers) {
      question.append(" ", make("span", "a", unbroken(answer.answer)));
      question.append(make("span", "v", unbroken(answer.value)));
    }
    const row = make("div", "ask", question);
    if (exit) {
      question.classList.add("has-exit");
      if (lit.has(exit)) question.classList.add("exits");
      row.append(box(exit, name === "kernel" ? "exit good" : "exit", exitText));
    } else if (name !== "entry") {
      question.classList.add("has-exit");
      const last = [...lit].filter((node) => QUESTIONS.some(([q]) => q === node)).pop();
      const exits = lit.has("badarea") && last === name;
      if (exits) question.classList.add("exits");
      row.append(make("div", `box exit${exits ? " is-lit" : ""}`, "bad area"));
    }
    figure.append(row);
  }
  const reached = CASES.some(([name]) => lit.has(name));
  figure.append(make("div", `stem${reached ? " is-lit" : ""}`));
  const cases = CASES.map(([name, text, when]) =>
    box(name, name === "oom" ? "bad" : "good", text, make("small", "", when)));
  figure.append(make("div", "group", make("p", "", "one correction"), make("div", "cases", ...cases)));
  figure.append(make("div", `stem${lit.has("badarea") ? " is-lit" : ""}`));
  const bads = [["segv", "user: SIGSEGV"], ["fixup", "kernel: fixup"], ["oops", "kernel: oops"], ["erratum", "erratum: again"]];
  figure.append(make("div", "group", make("p", "", "bad area"),
    make("div", "bads", ...bads.map(([name, text]) => box(name, "exit bad", text)))));
  return figure;
}

/* Words in bits. */

const binary = (value, bits) => value.toString(2).padStart(bits, "0");

function drawWord(entry, other) {
  const word = make("div", "word");
  const was = new Map((other ? other.fields : []).map((field) => [field.name, field.value]));
  // An entry of another kind differs everywhere, so nothing is marked.
  const alike = other && other.fields.length === entry.fields.length;
  let above = null;
  for (const field of entry.fields) {
    const top = field.low + field.bits;
    if (above !== null && above > top) {
      word.append(titled(make("span", "bits gap", "·"), `bits ${top} to ${above - 1}: 0, or not used here`));
    }
    above = field.low;
    const wide = field.bits > 6;
    const shown = wide ? String(field.value) : binary(field.value, field.bits);
    const bits = make("span", "bits", make("b", "", shown), make("small", "", field.name));
    if (field.value) bits.classList.add("is-set");
    if (alike && was.get(field.name) !== field.value) bits.classList.add("is-changed");
    const range = field.bits === 1 ? `bit ${field.low}` : `bits ${field.low} to ${field.low + field.bits - 1}`;
    word.append(titled(bits, `${field.name}, ${range}: ${field.meaning}`));
  }
  return titled(word, entry.word);
}

function drawAddress(model, access) {
  const { levels, page } = model.computer;
  const value = BigInt(access.address);
  const shown = make("div", "address");
  const top = BigInt(levels[0].shift + levels[0].bits);
  const rest = value >> top;
  if (rest) shown.append(make("span", "", `0x${rest.toString(16)}`, make("small", "", "above")));
  for (const level of levels) {
    const index = (value >> BigInt(level.shift)) & ((1n << BigInt(level.bits)) - 1n);
    shown.append(make("span", "is-index", binary(index, level.bits), make("small", "", `${level.name} ${index}`)));
  }
  const offset = value % BigInt(page);
  const bits = Math.log2(page);
  shown.append(make("span", "", binary(offset, bits), make("small", "", `offset ${offset}`)));
  return shown;
}

function drawWalk(model, step) {
  const access = step.access;
  if (!access) return null;
  const body = make("div");
  const name = (level) => (model.computer.levels.find((l) => l.level === level) || {}).name;
  const head = make("p", "mono", `CPU ${access.cpu} · ${access.mode} ${access.kind} · ${access.place} = ${access.address}`);
  head.style.margin = "0 0 .4rem";
  body.append(head);
  const tlb = {
    hit: "TLB hit: no walk is needed.",
    forbids: "TLB hit, but the translation forbids the access: no walk is made.",
    clean: "TLB hit, but the translation is not marked dirty: a walk sets the bit in the entry.",
    miss: "TLB miss: the table is walked.",
  }[access.tlb];
  body.append(make("p", "empty", tlb));
  if (access.walk.length) body.append(make("div", "", drawAddress(model, access)));
  access.walk.forEach((walked, index) => {
    const label = make("div", "name", name(walked.level), make("small", "", `frame ${walked.table}, entry ${walked.index}`));
    const row = make("div", "level", label, drawWord(walked.entry), make("div", "says", unbroken(`${walked.entry.word}: ${walked.entry.says}`)));
    if (access.fault && index === access.walk.length - 1) row.classList.add("is-end");
    body.append(row);
  });
  if (access.fault) {
    const { address, code, bits } = access.fault;
    const word = drawWord({ word: code, fields: bits });
    body.append(make("div", "code", make("span", "mono", `CR2 ${address}`), make("span", "mono", `error code ${code}`), word));
    const meanings = bits.filter((bit) => bit.value || bit.name === "P").map((bit) => bit.meaning);
    body.append(make("p", "empty", meanings.join(" · ")));
  }
  return body;
}

function drawEntry(step) {
  if (!step.before || !step.after) return null;
  const { before, after } = step;
  return make("div", "ba",
    make("span", "label", "before"), drawWord(before),
    make("span", "says", unbroken(`${before.word}: ${before.says}`)),
    make("span", "label", "after"), drawWord(after, before),
    make("span", "says", unbroken(`${after.word}: ${after.says}`)));
}

function drawActions(step) {
  if (!(step.actions || []).length) return null;
  const list = make("ol", "done");
  for (const action of step.actions) {
    const item = make("li", action.kind === "note" ? "note" : "", unbroken(action.text));
    if (action.spec) item.append(chip(action.spec));
    if (!step.before && action.before && action.after) {
      const words = make("div", "", drawWord(action.before), drawWord(action.after, action.before));
      words.style.cssText = "display:grid;gap:3px;margin:.2rem 0 .35rem";
      item.append(words);
    }
    list.append(item);
  }
  return list;
}

function drawCounts(step) {
  if (!(step.counts || []).length) return null;
  const table = make("table");
  for (const { what, before, after } of step.counts) {
    const number = make("td", "num", `${before} → `, make("b", "", String(after)));
    table.append(make("tr", "", make("td", "", what), number));
  }
  return table;
}
