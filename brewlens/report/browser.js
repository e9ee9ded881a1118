"use strict";
// What is interactive on the page: the sample browser, the copy button, details opened for print.
// Whatever a run's items say is put in as text, never as markup.
(() => {
  const byId = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const NBSP = "\u00a0";

  function filled(made, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }
  const node = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);
  const drawn = (tag, attributes, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

  // ---- The data: base64 of gzip of [length of JSON, JSON, one block of bytes per decoder].

  async function unpacked(text) {
    const letters = atob(text);
    const packed = new Uint8Array(letters.length);
    for (let k = 0; k < letters.length; k++) packed[k] = letters.charCodeAt(k);
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    const length = new DataView(bytes.buffer).getUint32(0, true);
    const run = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
    let offset = 4 + length;
    for (const decoder of run.decoders) {
      const size = run.samples.id.length * run.classes.length * decoder.layers;
      decoder.bytes = bytes.subarray(offset, offset + size);
      offset += size;
    }
    return run;
  }

  function probability(run, decoder, sample, layer, answer) {
    const row = sample * run.classes.length + answer;
    return decoder.bytes[row * decoder.layers + layer] / run.steps;
  }

  const told = (p) => (p === 0 ? "below 0.004" : p.toFixed(3));

  function favourite(run, decoder, sample, layer) {
    const all = run.classes.map((_, answer) => probability(run, decoder, sample, layer, answer));
    return all.indexOf(Math.max(...all));
  }

  // ---- Programs: tokens with hairlines between them, and the literal in which twins differ.

  function program(target, [text, lengths, span], readOut) {
    const letters = Array.from(text); // Python counts characters, JavaScript half of some
    const cuts = new Set(span ? span.filter((cut) => cut > 0 && cut < letters.length) : []);
    const pieces = [];
    let start = 0;
    for (const length of lengths ?? []) {
      if (length) pieces.push([start, start + length, "token"]);
      start += length;
    }
    if (start < letters.length) pieces.push([start, letters.length, ""]);
    target.replaceChildren();
    pieces.forEach(([from, to, kind], number) => {
      const last = readOut && kind && number === pieces.length - 1;
      const piece = node("span", { class: last ? "token last" : kind });
      if (last) piece.title = "The last token: its residual is what all decoders read";
      const ends = [from, ...[...cuts].filter((cut) => from < cut && cut < to).sort((a, b) => a - b), to];
      for (let k = 1; k < ends.length; k++) {
        const part = letters.slice(ends[k - 1], ends[k]).join("");
        const inside = span && ends[k - 1] >= span[0] && ends[k] <= span[1];
        piece.append(inside ? node("mark", {}, part) : part);
      }
      target.append(piece);
    });
    target.scrollTo(0, 0);
  }

  // ---- One chart per decoder.

  function chart(run, decoder, sample, marks, say) {
    const { classes } = run, layers = decoder.layers, count = classes.length;
    const answer = classes.indexOf(run.samples.answer[sample]);
    const output = classes.indexOf(run.samples.output[sample]);
    const longest = Math.max(...classes.map((name) => name.length));
    const width = Math.max(1.6, Math.min(Math.max(17, 7 * longest + 4), 200 / count));
    const height = Math.max(6, Math.min(16, 300 / layers));
    const left = 24, top = 4, gutter = marks.length ? 104 : 4;
    const right = left + width * count, bottom = top + height * layers;
    const y = (layer) => bottom - height * (layer + 1);
    const size = { width: right + gutter, height: bottom + 20 };
    const svg = drawn("svg", { ...size, viewBox: `0 0 ${size.width} ${size.height}`, tabindex: 0, role: "application" });
    svg.style.setProperty("--c", decoder.color);
    svg.append(drawn("rect", { x: left, y: top, width: right - left, height: bottom - top, class: "ground" }));
    const spoken = [];
    for (let layer = 0; layer < layers; layer++) {
      const best = favourite(run, decoder, sample, layer);
      spoken.push(`${layer}: ${classes[best]} (${probability(run, decoder, sample, layer, best).toFixed(2)})`);
      for (let k = 0; k < count; k++) {
        const p = probability(run, decoder, sample, layer, k);
        if (!p) continue;
        const cell = { x: left + k * width, y: y(layer), width: width - Math.min(1, width / 4), height: height - 1 };
        svg.append(drawn("rect", { ...cell, "fill-opacity": p, class: k === answer ? "cell right" : "cell" }));
      }
    }
    const column = { x: left + answer * width - 0.5, y: top - 0.5, width, height: bottom - top };
    if (answer >= 0) svg.append(drawn("rect", { ...column, class: "column" }));
    const every = layers > 16 ? Math.ceil(layers / 8) : 1;
    for (let layer = 0; layers > 1 && layer < layers; layer += every) {
      svg.append(drawn("text", { x: left - 5, y: y(layer) + height / 2 + 3, class: "end" }, layer));
    }
    const all = width >= 7 * longest + 2;
    classes.forEach((name, k) => {
      if (!all && k !== answer && k !== output) return;
      const kind = [k === answer && "answer", k === output && "output"].filter(Boolean).join(" ");
      svg.append(drawn("text", { x: left + (k + 0.5) * width, y: bottom + 13, class: `middle ${kind}` }, name));
    });
    const lines = new Map();
    for (const [name, layer] of marks) lines.set(layer, [...(lines.get(layer) ?? []), name]);
    let free = Infinity; // labels go upwards, and none stands on another
    for (const [layer, names] of [...lines].sort((a, b) => a[0] - b[0])) {
      const at = y(layer) + height / 2;
      free = Math.min(at + 3, free - 11);
      svg.append(drawn("path", { d: `M${left - 2} ${at}H${right + 3}`, class: "landmark" }));
      svg.append(drawn("text", { x: right + 6, y: free }, names.join(", ")));
    }
    const heading = `${decoder.name}: the most probable answer by layer; right is ${run.samples.answer[sample]}`;
    svg.setAttribute("aria-label", `${heading}. ${spoken.join(", ")}.`);
    const cursor = drawn("rect", { width, height, class: "cursor", visibility: "hidden" });
    svg.append(cursor);
    let here = null;
    const move = (layer, k) => {
      here = [layer, k];
      cursor.setAttribute("x", left + k * width - 0.5);
      cursor.setAttribute("y", y(layer) - 0.5);
      cursor.setAttribute("visibility", "visible");
      const words = [k === answer && "right", k === output && "the model’s"].filter(Boolean).join(", ");
      const where = `${layers > 1 ? `layer ${layer}, ` : ""}answer ${classes[k]}`;
      say(`${where}: ${told(probability(run, decoder, sample, layer, k))}${words && ` (${words})`}`);
    };
    const leave = () => say(cursor.setAttribute("visibility", "hidden"));
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const scale = size.width / box.width;
      const k = Math.floor(((event.clientX - box.left) * scale - left) / width);
      const layer = Math.floor((bottom - (event.clientY - box.top) * scale) / height);
      if (k >= 0 && k < count && layer >= 0 && layer < layers) move(layer, k);
      else leave();
    });
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("focus", () => move(...(here ?? [layers - 1, Math.max(0, answer)])));
    svg.addEventListener("blur", leave);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      const [layer, k] = here ?? [layers - 1, Math.max(0, answer)];
      move(Math.min(layers - 1, Math.max(0, layer + step[0])), Math.min(count - 1, Math.max(0, k + step[1])));
    });
    return svg;
  }

  function table(run, sample) {
    const names = ["Layer", ...run.decoders.map((decoder) => decoder.name)];
    const head = node("tr", {}, ...names.map((name) => node("th", { scope: "col" }, name)));
    const body = node("tbody");
    const answer = run.classes.indexOf(run.samples.answer[sample]);
    for (let layer = 0; layer < Math.max(...run.decoders.map((decoder) => decoder.layers)); layer++) {
      const row = node("tr", {}, node("th", { scope: "row" }, String(layer)));
      for (const decoder of run.decoders) {
        const cell = row.appendChild(node("td", {}, "–"));
        if (layer >= decoder.layers) continue;
        const best = favourite(run, decoder, sample, layer);
        const most = `${run.classes[best]} ${told(probability(run, decoder, sample, layer, best))}`;
        const right = told(probability(run, decoder, sample, layer, answer));
        cell.replaceChildren(best === answer ? node("strong", {}, most) : `${most}; right: ${right}`);
      }
      body.append(row);
    }
    const text = "The most probable answer of each decoder, bold where it is right, and else the right answer’s probability";
    return node("table", {}, node("caption", {}, node("span", {}, text)), node("thead", {}, head), body);
  }

  // ---- The browser.

  function browser(run) {
    const { samples } = run;
    const outcomes = Object.values(run.outcomes);
    const family = byId("b-family"), outcome = byId("b-outcome"), search = byId("b-search");
    const place = byId("b-place"), details = byId("b-table");
    let found = [], at = 0, used = false;

    const matches = (row, words) => {
      if (!words || samples.id[row] === words) return true;
      if (run.classes.includes(words)) return samples.answer[row] === words;
      return samples.id[row].toLowerCase().includes(words.toLowerCase());
    };

    function rows(byOutcome = outcome.value) {
      const words = search.value.trim();
      return samples.id
        .map((_, row) => row)
        .filter((row) => family.value === "" || samples.family[row] === Number(family.value))
        .filter((row) => byOutcome === "" || samples.outcome[row] === Number(byOutcome))
        .filter((row) => matches(row, words));
    }

    function choose(keep) {
      for (const option of outcome.options) {
        option.textContent = `${outcomes[option.value]?.[0] ?? "all"} (${rows(option.value).length})`;
      }
      const before = keep ?? found[at];
      found = rows();
      at = Math.max(0, found.indexOf(before));
      show();
    }

    function fact(name, ...content) {
      byId("b-facts").append(node("dt", {}, name), node("dd", {}, ...content));
    }

    function layers(names, row) {
      return Object.entries(names)
        .filter(([key]) => key in samples)
        .map(([key, name]) => `${name} ${samples[key][row] ?? "–"}`)
        .join(", ");
    }

    function facts(row) {
      const chip = (k) => {
        const dot = node("span", { class: "dot" });
        dot.style.setProperty("--c", outcomes[k][1]);
        return node("span", { class: "chip" }, dot, outcomes[k][0]);
      };
      byId("b-facts").replaceChildren();
      const right = samples.answer[row] === samples.output[row];
      fact("Outcome", chip(samples.outcome[row]));
      fact("Paper’s rule", chip(samples.outcome_paper[row]));
      if (samples.outcome_onset) fact("By onsets", chip(samples.outcome_onset[row]));
      fact("Right answer", node("strong", {}, samples.answer[row]));
      const missed = samples.missed[row] ? " (format miss)" : "";
      fact("Model’s answer", node("strong", {}, samples.output[row]), `, ${right ? "right" : "wrong"}${missed}`);
      fact("First hits", layers({ fpcl: "FPCL", fcc: "FCC", fjc: "FJC", brewing: "brewing" }, row));
      if (samples.available_from) {
        fact("Onsets", layers({ available_from: "available from", ready_from: "ready from", ready_until: "ready until" }, row));
        fact("p(ever)", layers({ p_available: "available", p_ready: "ready" }, row));
      }
      fact("Tail", `favours ${samples.tail[row][0]} with ${samples.tail[row][1].toFixed(2)}`);
      fact("Twin’s answer", samples.twin[row] ? node("strong", {}, samples.twin_answer[row]) : "no twin");
      fact("Item", node("code", {}, samples.id[row]), samples.factors[row] ? `, ${samples.factors[row]}` : "");
    }

    function marks(role, row) {
      const names = {
        available: { fpcl: "FPCL", fjc: "FJC", available_from: "available" },
        ready: { fcc: "FCC", fjc: "FJC", ready_from: "ready", ready_until: "until" },
      }[role] ?? {};
      return Object.entries(names)
        .filter(([key]) => samples[key] && samples[key][row] !== null)
        .map(([key, name]) => [name, samples[key][row]]);
    }

    function show() {
      byId("b-sample").hidden = !found.length;
      if (!found.length) {
        place.textContent = "No sample is like this.";
        return;
      }
      const row = found[at];
      place.textContent = `${at + 1} of ${found.length}: ${samples.id[row]}`;
      program(byId("b-program"), samples.program[row], true);
      byId("b-twin-side").hidden = !samples.twin[row];
      if (samples.twin[row]) program(byId("b-twin"), samples.twin[row], false);
      facts(row);
      const count = samples.program[row][1]?.filter(Boolean).length;
      byId("b-legend").textContent =
        `${count ? `${count} tokens; decoders read at the last one, which is shaded. ` : ""}Below each chart, the right ` +
        "answer is bold and the model’s underlined. Dashed lines are at the layers of first hits and onsets.";
      byId("b-charts").replaceChildren(
        ...run.decoders.map((decoder) => {
          const says = node("output", { "aria-live": "polite" }, NBSP);
          const say = (text) => (says.textContent = text || NBSP);
          const title = node("figcaption", {}, decoder.name, decoder.role ? `: ${decoder.role}` : "");
          return node("figure", {}, title, chart(run, decoder, row, marks(decoder.role, row), say), says);
        }),
      );
      if (details.open) details.lastElementChild.replaceChildren(table(run, row));
    }

    function step(by) {
      if (!found.length) return;
      at = (at + by + found.length) % found.length;
      show();
      remember();
    }

    function remember() {
      used = true;
      if (found.length) history.replaceState(null, "", `#sample=${encodeURIComponent(samples.id[found[at]])}`);
    }

    function open(id) {
      const row = samples.id.indexOf(id);
      byId("browser").scrollIntoView();
      if (row < 0) return void (place.textContent = `Sample ${id} is not in this page.`);
      family.value = outcome.value = search.value = "";
      used = true;
      choose(row);
    }

    family.append(node("option", { value: "" }, `all (${samples.id.length})`));
    run.families.forEach((name, k) => {
      family.append(node("option", { value: k }, `${name} (${samples.family.filter((f) => f === k).length})`));
    });
    outcome.append(node("option", { value: "" }));
    outcomes.forEach((_, k) => outcome.append(node("option", { value: k })));
    for (const [element, kind] of [[family, "change"], [outcome, "change"], [search, "input"]]) {
      element.addEventListener(kind, () => {
        choose();
        remember();
      });
    }
    byId("b-previous").addEventListener("click", () => step(-1));
    byId("b-next").addEventListener("click", () => step(1));
    details.addEventListener("toggle", () => found.length && show());
    document.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
      const inside = byId("browser-app").contains(event.target);
      if (event.target.closest("input, select, pre, .scroll, summary")) return;
      if (!inside && !(used && event.target === document.body)) return;
      event.preventDefault();
      step(by);
    });
    choose(run.start);
    return open;
  }

  // ---- Start: the data is unpacked when it is first looked at.

  function start() {
    const data = byId("browser-data"), message = byId("browser-message");
    const asked = () => (location.hash.startsWith("#sample=") ? decodeURIComponent(location.hash.slice(8)) : null);
    let opening = null;
    const wake = () =>
      (opening ??= unpacked(data.textContent).then((run) => {
        byId("browser-app").hidden = false;
        message.hidden = true;
        return browser(run);
      }));
    if (!data) return;
    if (typeof DecompressionStream === "undefined") {
      message.textContent =
        "This web browser cannot unpack the samples (it lacks DecompressionStream); newer ones can. The typical samples are below.";
      return;
    }
    document.documentElement.classList.add("unpacks");
    message.textContent = "The samples are being unpacked.";
    const look = async () => {
      if (asked() !== null) (await wake())(asked());
    };
    addEventListener("hashchange", look);
    look();
    const lookOut = (entries) => entries.some((entry) => entry.isIntersecting) && wake();
    new IntersectionObserver(lookOut, { rootMargin: "300px" }).observe(byId("browser"));
  }

  function copying() {
    const button = byId("copy"), said = byId("copied");
    button.hidden = false;
    button.addEventListener("click", async () => {
      getSelection().selectAllChildren(byId("bibtex"));
      let done = false;
      try {
        await navigator.clipboard.writeText(byId("bibtex").textContent);
        done = true;
      } catch {
        done = document.execCommand("copy"); // a page from a file may not be given the clipboard
      }
      said.textContent = done ? "Copied." : "It is selected: copy it with Ctrl+C.";
    });
  }

  function printing() {
    let closed = [];
    addEventListener("beforeprint", () => {
      closed = [...document.querySelectorAll("details:not([open], #b-table)")];
      for (const element of closed) element.open = true;
    });
    addEventListener("afterprint", () => {
      for (const element of closed) element.open = false;
    });
  }

  copying();
  printing();
  start();
})();
