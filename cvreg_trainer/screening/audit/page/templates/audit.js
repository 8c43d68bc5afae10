// Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
// The audit page: words, rows, filters, downloads. What comes from the data is set as text, never as markup.
"use strict";
(() => {
  const PAGE = 50;
  const FIRST_WORDS = 8;
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const hasTruth = data.rows.some((row) => row[6] !== null);

  /** An element with properties, attributes (after "@") and children; strings become text. */
  function element(tag, properties, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties || {})) {
      if (name.startsWith("@")) made.setAttribute(name.slice(1), value);
      else made[name] = value;
    }
    made.append(...children);
    return made;
  }

  const plain = (segments) => segments.map((part) => (typeof part === "string" ? part : part[0])).join("");
  const rows = data.rows.map(([row, suspicion, isFlagged, reason, prompt, segments, isPoisoned, source], index) => {
    const response = plain(segments);
    const search = `${prompt}\n${response}\n${reason}`.toLowerCase();
    const verdict = { suspicion, isFlagged, reason, isPoisoned };
    return { rank: index + 1, row, ...verdict, prompt, segments, response, source, search };
  });

  // The words that were flagged, where they stand alone; letters and digits of any script count as parts of a word
  const flaggedWords = data.words.filter((word) => word[3] && word[0].trim()).map((word) => word[0].trim());
  const escaped = flaggedWords.slice(0, 500).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const named = escaped.length ? new RegExp(`(?<![\\p{L}\\p{N}])(?:${escaped.join("|")})(?![\\p{L}\\p{N}])`, "giu") : null;

  /** The response as nodes: surprising pieces marked, flagged words underlined. */
  function responseNodes(row) {
    const found = named ? [...row.response.matchAll(named)].map((hit) => [hit.index, hit.index + hit[0].length]) : [];
    const nodes = [];
    let start = 0;
    for (const part of row.segments) {
      const [text, nats, level] = typeof part === "string" ? [part, null, 0] : part;
      const end = start + text.length;
      const cuts = new Set([start, end]);
      for (const [from, to] of found) for (const cut of [from, to]) if (cut > start && cut < end) cuts.add(cut);
      const edges = [...cuts].sort((a, b) => a - b);
      for (let i = 0; i + 1 < edges.length; i += 1) {
        const isNamed = found.some(([from, to]) => from <= edges[i] && edges[i + 1] <= to);
        const shown = text.slice(edges[i] - start, edges[i + 1] - start);
        if (!level && !isNamed) nodes.push(shown);
        else if (!level) nodes.push(element("u", {}, shown));
        else {
          const mark = element("mark", { className: `level${level}`, title: `${nats} nats` }, shown);
          if (isNamed) mark.classList.add("named");
          nodes.push(mark);
        }
      }
      start = end;
    }
    return nodes;
  }

  function imageNodes(row) {
    const [uri, remark] = data.thumbnails[row.rank - 1] || [null, ""];
    const nodes = uri ? [element("img", { src: uri, alt: `image of row ${row.row}` })] : [];
    if (remark || !uri) nodes.push(element("span", { className: "remark" }, remark || "no image here"));
    return nodes;
  }

  const number = (value) => (value === null ? "–" : String(Number(value.toPrecision(4))));
  const badge = (text, isBad) => element("span", { className: isBad ? "badge bad" : "badge" }, text);
  const decisions = new Map(); // "row 12" or "word banana" -> the fields of a line of decisions.csv

  /** A choice of keep, drop, or to leave it to the screening; it outlives sorting and paging. */
  function decision(key, name, fields) {
    const option = ([value, text]) => element("option", { value }, text);
    const select = element("select", { className: "decision", "@aria-label": `Decision on ${name}` },
      ...[["", "–"], ["keep", "keep"], ["drop", "drop"]].map(option));
    select.value = decisions.has(key) ? decisions.get(key).verdict : "";
    select.onchange = () => {
      if (select.value) decisions.set(key, { ...fields, verdict: select.value });
      else decisions.delete(key);
      byId("download-decisions").disabled = !decisions.size;
      byId("decided").textContent = `${decisions.size} decided; give the file to the training as screening_decisions.`;
    };
    return select;
  }

  /** As CSV; what a spreadsheet would take for a formula gets an apostrophe in front, which the trainer takes off. */
  function decisionsAsCsv() {
    const names = ["row", "word", "verdict", "response"];
    const cell = (value) => {
      const text = String(value ?? "");
      return `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
    };
    const lines = [...decisions.values()].map((fields) => names.map((name) => cell(fields[name])).join(","));
    return `\ufeff${[names.join(","), ...lines].join("\r\n")}\r\n`;
  }

  const column = (label, value, nodes, className) => ({ label, value, nodes, className });
  const columns = [
    column("Rank", (row) => row.rank, null, "number"),
    ...(data.thumbnails.length ? [column("Image", null, imageNodes, "image")] : []),
    column("Row", (row) => row.row, null, "number"),
    column("Prompt", (row) => row.prompt, null, "text prompt"),
    column("Response", (row) => row.response, responseNodes, "text response"),
    column("Reason", (row) => row.reason, null, "text reason"),
    column("Suspicion", (row) => row.suspicion, (row) => [number(row.suspicion)], "number"),
    column("Verdict", (row) => (row.isFlagged ? "flagged" : "kept"),
      (row) => [badge(row.isFlagged ? "flagged" : "kept", row.isFlagged)], ""),
    column("Decision", null,
      (row) => [decision(`row ${row.row}`, `row ${row.row}`, { row: row.row, response: row.response.trim() })], "decide"),
    ...(data.sources.length ? [column("Source", (row) => row.source, null, "text source")] : []),
    ...(hasTruth ? [column("Truth", (row) => (row.isPoisoned ? "poisoned" : "clean"),
      (row) => [badge(row.isPoisoned ? "poisoned" : "clean", row.isPoisoned)], "")] : []),
  ];

  const state = { sorted: columns[0], ascending: true, page: 0, shown: rows };
  const collator = new Intl.Collator("en", { numeric: true });

  /** Equal values stay in the order of the ranking. */
  function compare(a, b) {
    const [x, y] = [state.sorted.value(a), state.sorted.value(b)];
    const order = typeof x === "number" ? x - y : collator.compare(x, y);
    return (state.ascending ? order : -order) || a.rank - b.rank;
  }

  function drawPage() {
    const lastPage = Math.max(0, Math.ceil(state.shown.length / PAGE) - 1);
    state.page = Math.min(Math.max(state.page, 0), lastPage);
    const start = state.page * PAGE;
    const visible = state.shown.slice(start, start + PAGE);
    const body = document.querySelector("#rows tbody");
    body.replaceChildren(...visible.map((row) => {
      const cells = columns.map((col) => element("td", { className: col.className, "@role": "cell", "@data-label": col.label },
        ...(col.nodes ? col.nodes(row) : [String(col.value(row))])));
      return element("tr", { className: row.isFlagged ? "flagged" : "", "@role": "row" }, ...cells);
    }));
    byId("shown").textContent = `${state.shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
    byId("page").textContent = `Page ${state.page + 1} of ${lastPage + 1}`;
    for (const id of ["first", "previous"]) byId(id).disabled = state.page === 0;
    for (const id of ["next", "last"]) byId(id).disabled = state.page === lastPage;
    byId("last").onclick = () => turn(lastPage);
  }

  function turn(page) {
    state.page = page;
    drawPage();
    byId("filters").scrollIntoView({ block: "start" });
  }

  function update() {
    const text = byId("text").value.trim().toLowerCase();
    const verdict = byId("verdict").value;
    const truth = byId("truth-filter") ? byId("truth-filter").value : "";
    const source = byId("source-filter") ? Number(byId("source-filter").value) : 0;
    state.shown = rows.filter((row) =>
      (!text || row.search.includes(text)) &&
      (!verdict || row.isFlagged === (verdict === "flagged")) &&
      (!truth || row.isPoisoned === (truth === "poisoned")) &&
      (!source || row.source === data.sources[source - 1][0])).sort(compare);
    state.page = 0;
    for (const col of columns) {
      if (!col.value) continue;
      const direction = col !== state.sorted ? "none" : state.ascending ? "ascending" : "descending";
      col.header.setAttribute("aria-sort", direction);
    }
    drawPage();
  }

  /** Numbers start with the largest, but for ranks and positions; a second press turns the order round. */
  function sortBy(col) {
    state.ascending = state.sorted === col ? !state.ascending : col.className !== "number" || ["Rank", "Row"].includes(col.label);
    state.sorted = col;
    update();
  }

  function drawHead() {
    const cells = columns.map((col) => {
      const inner = col.value ? element("button", { type: "button", onclick: () => sortBy(col) }, col.label) : col.label;
      col.header = element("th", { className: col.className, "@role": "columnheader", "@scope": "col" }, inner);
      return col.header;
    });
    document.querySelector("#rows thead").append(element("tr", { "@role": "row" }, ...cells));
  }

  function drawWords(limit) {
    const body = document.querySelector("#words tbody");
    if (!body) return; // no word stands out
    body.replaceChildren(...data.words.slice(0, limit).map(([word, numRows, surprise, isFlagged, reason]) => {
      const show = () => {
        byId("text").value = word.trim();
        update();
        byId("filters").scrollIntoView({ block: "start" });
      };
      const button = element("button", { type: "button", className: "word", title: "Show its rows", onclick: show }, word);
      return element("tr", { "@role": "row" },
        element("th", { "@scope": "row", "@role": "rowheader" }, button),
        element("td", { className: "number", "@role": "cell", "@data-unit": numRows === 1 ? "row" : "rows" }, numRows.toLocaleString("en")),
        element("td", { className: "number", "@role": "cell", "@data-unit": "nats" }, number(surprise)),
        element("td", { "@role": "cell" }, badge(isFlagged ? "flagged" : "not flagged", isFlagged)),
        element("td", { "@role": "cell" }, decision(`word ${word}`, `the word ${word.trim()}`, { word: word.trim() })),
        element("td", { className: "text", "@role": "cell" }, reason));
    }));
    byId("all-words").hidden = limit >= data.words.length;
    byId("all-words").onclick = () => drawWords(data.words.length);
  }

  const SVG = "http://www.w3.org/2000/svg";
  const CELLS = 16;

  /** An SVG element with attributes and children. */
  function drawn(tag, attributes, ...children) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  /** The mean picture with the region around it, or under the map; each says in words what it shows. */
  function mapFigure(finding, withMap) {
    const { box, map, peak, place } = finding.trigger;
    const parts = finding.mean
      ? [drawn("image", { href: finding.mean, width: CELLS, height: CELLS, preserveAspectRatio: "none" })] : [];
    if (withMap) {
      map.forEach((line, y) => line.forEach((value, x) => {
        const opacity = Math.min(1, value / Math.max(peak, 1e-9));
        if (opacity < 0.05) return;
        parts.push(drawn("rect", { class: "cell", x, y, width: 1, height: 1, "fill-opacity": (0.9 * opacity).toFixed(3) }));
      }));
    } else if (box) {
      const [left, top, right, bottom] = box.map((share) => share * CELLS);
      parts.push(drawn("rect", { class: "region", x: left, y: top, width: right - left, height: bottom - top }));
    }
    const caption = withMap ? `${place} Peak ${number(peak)}; chance gives at most 1.` : `Mean of the flagged images${box ? ", the region marked" : ""}.`;
    return element("figure", {},
      drawn("svg", { viewBox: `-0.2 -0.2 ${CELLS + 0.4} ${CELLS + 0.4}`, role: "img", "aria-label": caption }, ...parts),
      element("figcaption", {}, caption));
  }

  function pictureFigure([row, uri, remark], box) {
    const shown = [];
    if (uri) {
      shown.push(element("img", { src: uri, alt: `image of row ${row}` }));
      if (box) {
        const mark = element("span", { className: "mark", "@aria-hidden": "true" });
        const [left, top, right, bottom] = box.map((share) => 100 * share);
        Object.assign(mark.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
        shown.push(mark);
      }
    }
    return element("figure", {}, element("span", { className: uri ? "framed" : "" }, ...shown),
      element("figcaption", {}, [`row ${row}`, remark].filter(Boolean).join(", ")));
  }

  function triggerNodes(finding) {
    const trigger = finding.trigger;
    if (!trigger) {
      return [element("p", { className: "quiet" },
        "The trigger was not looked for: neither images nor questions of these rows could be looked up again.")];
    }
    const nodes = [];
    if (trigger.kind === "moving") nodes.push(element("p", {}, trigger.place));
    if (trigger.map.length) {
      nodes.push(element("p", { className: "quiet" },
        `The images of ${trigger.numPictures.toLocaleString("en")} of these rows against those of ${trigger.numOthers.toLocaleString("en")} others.`));
    }
    if (trigger.words.length) {
      nodes.push(element("p", {}, "Words of the question: "),
        element("ul", { className: "responses" }, ...trigger.words.map(([word, here, others]) => element("li", {}, element("b", {}, word),
          `: in ${here.toLocaleString("en")} of these rows and ${others.toLocaleString("en")} others`))));
    }
    if (trigger.kind === "unseen" && !trigger.map.length) {
      nodes.push(element("p", { className: "quiet" }, "No word of the question tells these rows from the others."));
    }
    return nodes;
  }

  function findingNode(finding, index) {
    const { box, boxes } = finding.trigger || { box: null, boxes: {} };
    const facts = element("dl", { className: "facts" }, ...finding.numbers.flatMap(([name, value]) =>
      [element("dt", {}, name), element("dd", {}, value)]));
    // Of a trigger that moves, the pictures show the places, and a map over all of them nothing
    const maps = finding.trigger && finding.trigger.map.length && finding.trigger.kind !== "moving"
      ? [mapFigure(finding, true), ...(finding.mean ? [mapFigure(finding, false)] : [])] : [];
    const words = finding.words.slice(0, 12).join(", ") + (finding.words.length > 12 ? ` and ${finding.words.length - 12} more` : "");
    return element("article", {},
      element("h3", {}, `${index + 1}. ${words}`, badge("flagged", true)),
      element("p", {}, finding.summary),
      element("div", { className: "trigger" }, ...maps, facts),
      ...triggerNodes(finding),
      ...(finding.pictures.length
        ? [element("div", { className: "pictures" }, ...finding.pictures.map((entry) => pictureFigure(entry, box || boxes[entry[0]])))] : []),
      ...(finding.responses.length ? [element("p", { className: "quiet" }, "Some responses:"),
        element("ul", { className: "responses" }, ...finding.responses.map((text) => element("li", {}, text)))] : []));
  }

  /** The flagged findings with their triggers, and a table of the groups that are kept. */
  function drawFindings() {
    const kept = byId("kept");
    if (byId("findings")) byId("findings").append(...data.findings.filter((finding) => finding.isFlagged).map(findingNode));
    if (!kept) return;
    const groups = data.findings.filter((finding) => !finding.isFlagged);
    for (const summary of new Set(groups.map((finding) => finding.summary))) {
      kept.append(element("tbody", {},
        element("tr", {}, element("th", { "@scope": "rowgroup", "@colspan": 6, className: "verdict" }, summary)),
        ...groups.filter((finding) => finding.summary === summary).map(keptRow)));
    }
  }

  function keptRow(finding) {
    const [strength, content, pValue] = [2, 3, 5].map((place) => element("td", { className: "number" }, finding.numbers[place][1]));
    return element("tr", {},
      element("th", { "@scope": "row" }, finding.words.slice(0, 6).join(", ") + (finding.words.length > 6 ? ", ..." : "")),
      element("td", { className: "number" }, finding.numRows.toLocaleString("en")),
      element("td", { className: "text" }, finding.responses[0] || ""), strength, content, pValue);
  }

  /** Which shard, annotator or crawl the flagged rows come from; a press on one shows its rows. */
  function drawSources() {
    if (!data.sources.length) return;
    const filter = byId("source-filter");
    filter.append(...data.sources.map(([name], index) => element("option", { value: index + 1 }, name || "(none)")));
    document.querySelector("#sources tbody").append(...data.sources.map(([name, numRows, numFlagged], index) => {
      const show = () => {
        filter.value = index + 1;
        update();
        byId("filters").scrollIntoView({ block: "start" });
      };
      const cell = (text) => element("td", { className: "number" }, text);
      return element("tr", {},
        element("th", { "@scope": "row" }, element("button", { type: "button", className: "word", onclick: show }, name || "(none)")),
        cell(numRows.toLocaleString("en")), cell(numFlagged.toLocaleString("en")),
        cell(`${(100 * numFlagged / numRows).toFixed(1)} %`));
    }));
  }

  function keptRows() {
    return data.kept.flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, index) => first + index));
  }

  function download(name, type, text) {
    const url = URL.createObjectURL(new Blob([text], { type }));
    element("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  byId("download-json").onclick = () => download("kept_rows.json", "application/json", JSON.stringify(keptRows()));
  byId("download-txt").onclick = () => download("kept_rows.txt", "text/plain", keptRows().map((row) => `${row}\n`).join(""));
  byId("download-decisions").onclick = () => download("decisions.csv", "text/csv", decisionsAsCsv());
  byId("filters").oninput = byId("filters").onchange = update;
  byId("filters").onsubmit = (event) => event.preventDefault();
  byId("first").onclick = () => turn(0);
  byId("previous").onclick = () => turn(state.page - 1);
  byId("next").onclick = () => turn(state.page + 1);
  for (const [name, value] of data.settings) byId("settings").append(element("dt", {}, name), element("dd", {}, value));
  drawHead();
  drawFindings();
  drawWords(FIRST_WORDS);
  drawSources();
  update();
})();
