"use strict";
// The pair browser: choose a pair, hear A and B, see the labels at every layer.

(() => {
  const at = (id) => document.getElementById(id);
  if (!at("pair-choice")) return;
  const { labels, colours, clips, experiments } = report.read("pairs-data");
  const sounds = report.read("sounds-data");
  const n = labels.length;
  let shown = []; // indices of the experiment's pairs that pass the filter

  const experiment = () => experiments[at("pair-experiment").selectedIndex];
  const pair = () => experiment().pairs[Number(at("pair-select").value)];
  // Of A, of B, and of each row; the logits are rounded, so that those of a near-tie do not show which is larger.
  const answerOfA = (p) => p.answers[0];
  const answerOfB = (p) => p.answers[1];
  const answerAt = (p, row) => p.answers[2 + row];
  const logitsAt = (p, row) => p.patch.slice(row * n, row * n + n);
  const eligible = (p) => answerOfA(p) !== p.target;
  const flips = (p) => eligible(p) && p.answers.slice(2).includes(p.target);
  const FILTERS = { all: () => true, eligible, flips, never: (p) => eligible(p) && !flips(p) };

  function element(name, text, attributes = {}) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  const words = (p) => {
    const parts = [p.a, p.b].flatMap((number) => [clips[number].id, clips[number].text ?? ""]);
    return [...parts, labels[p.target]].join(" ").toLowerCase();
  };

  function listPairs(keep) {
    const { pairs, left_out: leftOut } = experiment();
    const passes = FILTERS[at("pair-filter").value];
    const sought = at("pair-search").value.trim().toLowerCase();
    shown = pairs.map((_, index) => index).filter((i) => passes(pairs[i]) && words(pairs[i]).includes(sought));
    const options = shown.map((i) => {
      const p = pairs[i];
      const name = `${i + 1}. ${clips[p.a].id} ← ${clips[p.b].id}, target ${labels[p.target]}`;
      return element("option", name, { value: i });
    });
    at("pair-select").replaceChildren(...options);
    if (shown.includes(keep)) at("pair-select").value = keep;
    const { combinations } = experiment();
    const chosen = Number(at("pair-combination").value);
    at("pair-combination-box").hidden = combinations.length < 2;
    at("pair-combination").replaceChildren(...combinations.map((name, i) => element("option", name, { value: i })));
    if (chosen < combinations.length) at("pair-combination").value = chosen;
    at("pair-choice").dataset.leftOut = leftOut;
    show();
  }

  function show() {
    const some = shown.length > 0;
    const place = at("pair-select").selectedIndex;
    at("pair-previous").disabled = !some || place === 0;
    at("pair-next").disabled = !some || place === shown.length - 1;
    if (!some) {
      at("pair-summary").textContent = "No pair matches.";
      return;
    }
    const p = pair();
    showClip("a", p.a, answerOfA(p), p.lengths[0]);
    showClip("b", p.b, answerOfB(p), p.lengths[1]);
    at("pair-summary").textContent = summary(p, place);
    showMap(p);
    showValues(p);
  }

  function showClip(side, number, answer, length) {
    const clip = clips[number];
    const box = at(`clip-${side}`);
    box.querySelector(".text").textContent = clip.text ? `“${clip.text}”` : clip.id;
    const audio = box.querySelector("audio");
    const sound = sounds[number];
    audio.pause();
    audio.hidden = !sound;
    box.querySelector(".silent").hidden = Boolean(sound);
    if (sound) audio.src = `data:audio/mpeg;base64,${sound}`;
    else audio.removeAttribute("src");
    const facts = {
      "unpatched answer": labels[answer], "prosody label": clip.voice, "semantic label": clip.words,
      "text type": clip.text_type, speaker: clip.speaker, seconds: clip.seconds, "audio positions": length, clip: clip.id,
    };
    const rows = Object.entries(facts).filter(([, value]) => value !== undefined);
    box.querySelector("dl").replaceChildren(...rows.flatMap(([key, value]) => [element("dt", key), element("dd", value)]));
  }

  const chosenRows = () => {
    const chosen = Number(at("pair-combination").value);
    return experiment().rows.map(([layer, of], row) => ({ layer, of, row })).filter(({ of }) => of === chosen);
  };

  function summary(p, place) {
    const { has_donor: hasDonor, left_out: leftOut } = experiment(); // without a donor there is no target
    const given = chosenRows().map(({ layer, row }) => ({ layer, answer: answerAt(p, row) }));
    const runs = [];
    for (const { layer, answer } of given) {
      const last = runs.at(-1);
      if (last?.answer === answer) last.to = layer;
      else runs.push({ from: layer, to: layer, answer });
    }
    const parts = runs.map(({ from, to, answer }) => {
      const role = hasDonor && answer === p.target ? ", the target" : answer === answerOfA(p) ? ", A's own answer" : "";
      return `${from === to ? `layer ${from}` : `layers ${from} to ${to}`}: ${labels[answer]}${role}`;
    });
    const total = `${place + 1} of ${shown.length}${shown.length < experiment().pairs.length ? " shown" : ""}`;
    const held = experiment().pairs.length;
    const left = leftOut
      ? ` (this page has a sample of ${held} of ${held + leftOut} pairs; report --pairs-in-report all puts all in)`
      : "";
    const can = eligible(p) ? "" : " Not eligible: A unpatched gives the target.";
    const target = hasDonor ? ` Target: ${labels[p.target]}.${can}` : "";
    const { map, site } = experiment();
    const written = map ? `One of ${map.slices} parts was written at a time (${site}).` : `${p.lengths[2]} positions were written (${site}).`;
    return `${hasDonor ? "Pair" : "Clip"} ${total}${left}.${target} ${written} ${hasDonor ? "Patched" : "Changed"} at ${parts.join("; ")}.`;
  }

  const isNarrow = () => at("pair-chart").clientWidth < 560;
  const isProbability = () => document.querySelector("[name=pair-scale]:checked").value === "probabilities";

  function scaled(logits) {
    if (!isProbability()) return logits;
    const powers = logits.map((value) => Math.exp(value - Math.max(...logits)));
    const sum = powers.reduce((total, value) => total + value, 0);
    return powers.map((value) => value / sum);
  }

  function showValues(p) {
    const columns = [
      { x: "B", what: "B, unpatched", values: scaled(p.donor), answer: answerOfB(p) },
      ...chosenRows().map(({ layer, row }) => ({
        x: String(layer), what: `A, patched at layer ${layer}`, values: scaled(logitsAt(p, row)), patched: true,
        answer: answerAt(p, row),
      })),
      { x: "A", what: "A, unpatched", values: scaled(p.base), answer: answerOfA(p) },
    ];
    showTable(columns);
    report.draw(at("pair-chart"), specification(p, columns));
  }

  function showMap(p) {
    const { map, rows } = experiment();
    at("pair-map-box").hidden = !map;
    at("pair-map").className = map ? "chart" : "";
    if (!map) return;
    // Where the sound's length is not known, time is in per cent of A's span.
    const whole = clips[p.a].seconds ?? 100;
    const n = map.whole ? p.lengths[0] : Math.min(p.lengths[0], p.lengths[1]);
    const edge = (part) => (whole * Math.floor((part * n) / map.slices)) / p.lengths[0];
    const values = rows.map(([layer, of], row) => ({
      layer, part: map.parts[of], start: edge(map.parts[of]), end: edge(map.parts[of] + 1),
      change: logitsAt(p, row)[p.target] - p.base[p.target], answer: labels[answerAt(p, row)],
    }));
    const reach = Math.max(...values.map(({ change }) => Math.abs(change)), 0.001);
    const unit = clips[p.a].seconds ? "s" : "% of A's span";
    const place = (field, title) => ({ field, type: "quantitative", title, scale: { domain: [0, whole], nice: false } });
    report.draw(at("pair-map"), {
      width: "container", height: 200, data: { values }, mark: { type: "rect" },
      encoding: {
        x: place("start", `time in A's sound, ${unit}`), x2: { field: "end" },
        y: { field: "layer", type: "ordinal", sort: "descending", title: "patched layer", axis: { labelOverlap: true } },
        color: {
          field: "change", type: "quantitative", title: "Δ logit", scale: { scheme: "redblue", domain: [-reach, reach] },
        },
        tooltip: [
          { field: "layer" }, { field: "part" }, { field: "answer", title: "the answer" },
          { field: "change", title: "Δ logit of the target", format: ".3f" },
        ],
      },
    });
  }

  function specification(p, columns) {
    const title = isProbability() ? "probability among the labels" : "logit at the readout";
    const order = columns.map(({ x }) => x);
    const layers = order.slice(1, -1);
    const step = Math.max(1, Math.ceil(layers.length / (isNarrow() ? 8 : 18)));
    const ticks = ["B", ...layers.filter((_, index) => index % step === 0), "A"];
    const values = columns.flatMap(({ x, what, values: row, patched = false, answer }) =>
      row.map((value, label) => ({ x, what, label: labels[label], value, patched, answer: label === answer })));
    const x = {
      field: "x", type: "ordinal", sort: order, title: "patched layer (B, A: unpatched)",
      axis: { values: ticks, labelAngle: 0, labelOverlap: false },
    };
    const y = { field: "value", type: "quantitative", title, scale: { zero: false } };
    const color = {
      field: "label", type: "nominal", title: null, scale: { domain: labels, range: colours },
      legend: { direction: "horizontal", columns: isNarrow() ? 3 : 5, symbolType: "stroke" },
    };
    const tooltip = [
      { field: "what", title: "which" }, { field: "label", title: "label" },
      { field: "value", title, format: isProbability() ? ".1%" : ".3f" }, { field: "answer", title: "the answer" },
    ];
    const ends = { filter: `${experiment().has_donor} && !datum.patched && datum.label === ${JSON.stringify(labels[p.target])}` };
    return {
      width: "container", height: 300, data: { values },
      encoding: { y, color },
      layer: [
        { transform: [ends], mark: { type: "rule", strokeDash: [3, 4], opacity: 0.7 } },
        { transform: [{ filter: "datum.patched" }], mark: { type: "line", strokeWidth: 2 }, encoding: { x } },
        {
          mark: { type: "point", filled: true, opacity: 1 },
          encoding: {
            x, tooltip,
            size: { condition: { test: "datum.patched", value: 28 }, value: 90 },
            shape: { condition: { test: "datum.patched", value: "circle" }, value: "diamond" },
          },
        },
      ],
    };
  }

  function showTable(columns) {
    const table = at("pair-table").querySelector("table");
    table.caption.textContent = `${isProbability() ? "Probabilities among the labels" : "Logits"}; the answer is bold`;
    const head = element("tr");
    const names = ["", ...labels, "answer"];
    head.append(...names.map((name, i) => element("th", name, { scope: "col", ...(i && i <= n ? { class: "number" } : {}) })));
    table.tHead.replaceChildren(head);
    table.tBodies[0].replaceChildren(...columns.map(({ what, values, answer: best }) => {
      const row = element("tr");
      const cells = values.map((value, label) =>
        element("td", value.toFixed(3).replace("-", "−"), { class: label === best ? "number best" : "number" }));
      row.append(element("th", what, { scope: "row" }), ...cells, element("td", labels[best]));
      return row;
    }));
  }

  function move(by) {
    at("pair-select").selectedIndex += by;
    show();
  }

  at("pair-experiment").replaceChildren(...experiments.map(({ name, what }) => element("option", `${name}: ${what}`)));
  at("pair-experiment").addEventListener("change", () => listPairs());
  at("pair-choice").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["pair-filter", "pair-search"]) {
    at(id).addEventListener("input", () => listPairs(Number(at("pair-select").value)));
  }
  at("pair-select").addEventListener("change", show);
  at("pair-combination").addEventListener("change", show);
  document.querySelectorAll("[name=pair-scale]").forEach((radio) => radio.addEventListener("change", show));
  at("pair-previous").addEventListener("click", () => move(-1));
  at("pair-next").addEventListener("click", () => move(1));
  listPairs();
})();
