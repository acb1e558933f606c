// Drawing the state of the computer.

const MANY = 48;

function kinds(state) {
  return new Map(state.frames.map((frame) => [frame.frame, frame.kind]));
}

function drawSpaces(model, step, state) {
  const body = make("div");
  const kind = kinds(state);
  const now = step.access ? BigInt(step.access.address) : null;
  if (!state.processes.length) body.append(make("p", "empty", "No process is left."));
  for (const process of state.processes) {
    const many = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;
    body.append(make("h3", "", `${process.name} `, dim(`root in frame ${process.root} · resident: ${process.anonymous} anonymous, ${process.file} of files · ${many(process.minor, "minor fault")}, ${process.major} major`)));
    if (!process.regions.length) body.append(make("p", "empty", "No region."));
    for (const region of process.regions) body.append(drawRegion(model, process, region, kind, process.name === step.process ? now : null));
  }
  return body;
}

function drawRegion(model, process, region, kind, now) {
  const start = BigInt(region.start), end = BigInt(region.end), page = BigInt(model.computer.page);
  const marks = [region.content, ...region.marks];
  if (region.content !== "anonymous") marks.push(`from page ${region.index}`);
  if (region.family !== undefined) marks.push(`family ${region.family}`);
  const head = make("div", "head", make("span", "mono", region.place), make("span", "mono", region.rights), dim(marks.join(", ")), dim(`${region.start}–${region.end}`));
  const pages = make("div", "pages");
  const there = new Map(process.pages.map((entry) => [BigInt(entry.address), entry]));
  const count = Number((end - start) / page);
  let skipped = 0;
  const gap = () => {
    if (skipped) pages.append(make("span", "page gap", `… ${skipped} empty …`));
    skipped = 0;
  };
  for (let index = 0; index < count; index += 1) {
    const address = start + BigInt(index) * page;
    const entry = there.get(address);
    const isNow = now !== null && now >= address && now < address + page;
    if (!entry && !isNow && count > MANY) { skipped += 1; continue; }
    gap();
    pages.append(drawPage(entry, kind, isNow, index));
    if (index > 4096) break;
  }
  gap();
  return make("div", "region", head, pages);
}

function drawPage(entry, kind, isNow, index) {
  let cell;
  if (!entry) {
    cell = titled(make("span", "page", "·"), `page ${index}: nothing yet`);
  } else if (entry.frame !== undefined) {
    cell = make("span", `page k-${kind.get(entry.frame) || "kernel"}`, entry.kind === "none" ? `(${entry.frame})` : String(entry.frame));
    if (entry.writable) cell.classList.add("is-writable");
    titled(cell, `${entry.place}: ${entry.says}\n${entry.word}`);
  } else {
    const text = entry.kind === "guard" ? "✕" : entry.kind === "swap" ? entry.says.replace(/slot (\d+) of swap area (\d+)/, "⇩$2:$1") : entry.says.replace(/page (\d+) of the file/, "p$1");
    cell = titled(make("span", `page is-${entry.kind}`, text), `${entry.place}: ${entry.says}\n${entry.word}`);
  }
  if (isNow) cell.classList.add("is-now");
  return cell;
}

function drawFrames(model, state, before, pick) {
  const body = make("div");
  const grid = make("div", "grid");
  const was = new Map(before ? before.frames.map((frame) => [frame.frame, JSON.stringify([frame.kind, frame.owner, frame.maps])]) : []);
  const used = new Map(state.frames.map((frame) => [frame.frame, frame]));
  const total = model.computer.frames;
  // The frame numbers of devices follow those of memory.
  const shown = Math.max(total <= 128 ? total : 0, ...[...used.keys()].map((number) => number + 1));
  for (let number = 0; number < shown; number += 1) {
    const frame = used.get(number);
    if (!frame) {
      if (total <= 128 && number < total) grid.append(titled(make("span", "frame", String(number)), `frame ${number}: free`));
      continue;
    }
    const cell = make("button", `frame k-${frame.kind}`, make("b", "", String(number)), short(frame));
    cell.type = "button";
    titled(cell, describe(frame));
    const same = JSON.stringify([frame.kind, frame.owner, frame.maps]);
    if (before && was.get(number) !== same) cell.classList.add("is-new");
    cell.addEventListener("click", () => pick(number));
    grid.append(cell);
  }
  body.append(grid);
  const key = make("p", "key");
  for (const [kind, text] of [["table", "page table"], ["anonymous", "anonymous"], ["file", "file"], ["device", "device"], ["zeros", "zeros"], ["kernel", "kernel"]]) {
    const colour = make("i", "");
    colour.style.background = `var(--${kind})`;
    key.append(make("span", "", colour, text));
  }
  key.append(make("span", "", `watermarks: low ${model.computer.low}, high ${model.computer.high}`));
  key.append(make("span", "", `${state.free} of ${total} free`));
  body.append(key);
  const picked = make("p", "");
  picked.id = "picked";
  body.append(picked);
  return body;
}

function short(frame) {
  if (frame.kind === "table") return frame.owner.replace(/.*'s (level )?/, "");
  if (frame.kind === "zeros") return "0…0";
  if (frame.kind === "kernel") return "krnl";
  return `×${frame.maps}${frame.dirty ? "•" : ""}`;
}

function describe(frame) {
  const by = frame.mapped_by.length ? `; mapped by ${frame.mapped_by.join(", ")}` : "";
  if (frame.kind === "anonymous" || frame.kind === "file") {
    return `frame ${frame.frame}: ${frame.owner}; ${frame.maps} entries, ${frame.refs} references${frame.dirty ? ", dirty" : ""}${by}`;
  }
  return `frame ${frame.frame}: ${frame.owner}${by}`;
}

function drawTlbs(state) {
  const body = make("div");
  for (const tlb of state.tlbs) {
    body.append(make("h3", "", `CPU ${tlb.cpu} `, dim(tlb.process ? `runs ${tlb.process}` : "no process's table is loaded")));
    if (!tlb.entries.length) { body.append(make("p", "empty", "empty")); continue; }
    const table = make("table", "tlb");
    for (const entry of tlb.entries) {
      table.append(make("tr", "tlbentry", make("td", "mono", entry.place), make("td", "mono", `frame ${entry.frame}`), make("td", "mono", entry.rights)));
    }
    body.append(table);
  }
  return body;
}

function drawCaches(state) {
  const body = make("div");
  const list = (name, cached) => {
    if (!cached.length) return;
    body.append(make("h3", "", name));
    const table = make("table");
    for (const { key, frame, dirty } of cached) {
      table.append(make("tr", "cached", make("td", "", key), make("td", "mono", `frame ${frame}`), make("td", "", dirty ? "dirty" : "clean")));
    }
    body.append(table);
  };
  list("Page cache", state.page_cache);
  list("Swap cache", state.swap_cache);
  for (const area of state.swap) {
    body.append(make("h3", "", `Swap area ${area.area} `, dim(`${area.used.length} of ${area.slots} slots used`)));
    const used = new Map(area.used);
    const slots = make("div", "slots");
    for (let slot = 1; slot <= Math.min(area.slots, 64); slot += 1) {
      const refs = used.get(slot);
      const cell = make("span", refs ? "page is-swap" : "page", refs ? `${slot}×${refs}` : String(slot));
      slots.append(titled(cell, refs ? `slot ${slot}: ${refs} references` : `slot ${slot}: free`));
    }
    body.append(slots);
  }
  return body.childNodes.length ? body : null;
}

function drawQueues(state) {
  if (!state.small_queue.length && !state.main_queue.length) return null;
  const body = make("div");
  const kind = kinds(state);
  for (const [name, queue] of [["newcomers", state.small_queue], ["main", state.main_queue]]) {
    const row = make("div", "queue", make("span", "label", name));
    row.append(...queue.map((frame) => titled(make("span", `page k-${kind.get(frame)}`, String(frame)), `frame ${frame}`)));
    if (!queue.length) row.append(dim("empty"));
    body.append(row);
  }
  body.append(make("p", "empty", "The queues are cut into shards by frame number; a pass takes from each in turn."));
  return body;
}
