"use strict";
// Figures in the page's colours, drawn when they come into view or before the page is printed; `report` is what the
// pair browser shares.

const report = (() => {
  const COLOURS = {
    light: { ink: "#1c2024", soft: "#5b636b", line: "#d9dde1" },
    dark: { ink: "#e6e8ea", soft: "#a3abb3", line: "#343a41" },
  };
  // Greys of the figures that would drown in a dark page, or outshine it.
  const IN_THE_DARK = { "#595959": "#b4bbc2", "#8c8c8c": "#7f8790", "#e5e5e5": "#2c3238", "#bfbfbf": "#575f67" };
  const THEMES = ["auto", "light", "dark"];
  const system = matchMedia("(prefers-color-scheme: dark)");
  const charts = new Map(); // element -> { spec, width, view }

  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const chosen = () => document.documentElement.dataset.theme;
  const isDark = () => chosen() === "dark" || (chosen() === "auto" && system.matches);

  // Breaks a legend's text into lines that fit; Vega's expressions have no loop, but they have patterns.
  const inLines = (letters) =>
    `split(trim(replace(replace(datum.label, "n = ", "n\u00a0=\u00a0"), ${fits(letters)}, "$1\\n")), "\\n")`;
  const inParts = (text, letters) => (Array.isArray(text) ? text : text.match(new RegExp(`.{1,${letters}}( +|$)`, "g")) ?? text);
  const fits = (letters) => `regexp("(.{1,${letters}})( +|$)", "g")`;

  function config(width) {
    const { ink, soft, line } = COLOURS[isDark() ? "dark" : "light"];
    const small = { labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" };
    return {
      background: null,
      font: getComputedStyle(document.body).fontFamily,
      view: { stroke: null },
      axis: {
        ...small, labelColor: soft, titleColor: soft, gridColor: line, domainColor: line, tickColor: line,
        labelOverlap: true,
      },
      legend: {
        ...small, labelColor: ink, titleColor: soft, symbolSize: 180, symbolStrokeWidth: 2, rowPadding: 4,
        orient: "bottom", columns: 1, labelLimit: width, titleLimit: width, gradientLength: 160,
      },
      title: { color: ink },
      header: { labelColor: soft, titleColor: soft, titleFontSize: 12, titleFontWeight: "normal", labelFontSize: 12 },
      text: { color: ink },
      rule: { color: soft },
    };
  }

  // A copy of the specification with the page's greys, and with legends as the page places them.
  function fitted(part, width, key) {
    if (key === "datasets" || key === "values" || part === null) return part;
    if (typeof part === "string") return (isDark() && IN_THE_DARK[part.toLowerCase()]) || part;
    if (Array.isArray(part)) return part.map((item) => fitted(item, width));
    if (typeof part !== "object") return part;
    const copy = Object.fromEntries(Object.entries(part).map(([name, item]) => [name, fitted(item, width, name)]));
    if (["color", "strokeDash"].includes(key) && ["nominal", "ordinal"].includes(copy.type) && copy.legend !== null && !copy.legend?.direction) {
      const { columns, labelLimit, titleLimit, orient, ...legend } = copy.legend ?? {};
      const letters = Math.max(20, Math.floor((width - 110) / 6.5));
      copy.legend = { ...legend, labelExpr: inLines(letters) };
      for (const titled of [copy, copy.legend]) {
        if (titled.title) titled.title = inParts(titled.title, letters);
      }
    }
    if (key === "color" && copy.type === "quantitative" && copy.legend) {
      const { orient, gradientLength, titleLimit, ...legend } = copy.legend;
      copy.legend = legend;
      if (copy.title) copy.title = inParts(copy.title, Math.floor((width - 90) / 6.5));
    }
    if (key === "header" && copy.title) copy.title = inParts(copy.title, Math.max(20, Math.floor((width - 130) / 6.5)));
    // Beside the axis of layers stand the names of lines.
    if (key === "x" && copy.title) copy.title = inParts(copy.title, Math.max(20, Math.floor((width - 230) / 6.5)));
    return copy;
  }

  // Side by side as many small figures as there is room for; what stands one above the other as wide as the page.
  function wrapped(spec, width) {
    const fit = (view) => (view.facet ? wrapped(view, width) : { ...view, width: width - beside(view) });
    if (spec.vconcat) return { ...spec, vconcat: spec.vconcat.map(fit) };
    if (!spec.facet || spec.facet.row) return spec;
    const whole = spec.facet.column ?? spec.facet;
    const facet = { ...whole, header: { labelExpr: inLines(Math.max(12, Math.floor(spec.spec.width / 6.5))), ...whole.header } };
    return { ...spec, facet, columns: Math.max(1, Math.floor((width - 70) / (spec.spec.width + 20))) };
  }

  // The room beside a view: its axis, and the names of its lines.
  const beside = (view) => ((view.layer ?? []).some(({ mark }) => mark?.style === "line-label") ? 240 : 70);

  // Tables come as columns, texts as numbers of a list.
  function rows(columns) {
    const names = Object.keys(columns);
    const get = names.map((name) => {
      const { texts, numbers } = columns[name];
      return texts ? (i) => texts[numbers[i]] : (i) => columns[name][i];
    });
    const first = columns[names[0]] ?? [];
    return Array.from(first.numbers ?? first, (_, i) => Object.fromEntries(names.map((name, j) => [name, get[j](i)])));
  }

  // What a screen reader calls a figure; without it each is a "Vega visualization".
  function nameOf(box) {
    const caption = box.closest("figure")?.querySelector("figcaption strong");
    return box.dataset.name ?? caption?.textContent ?? "";
  }

  async function draw(box, spec) {
    charts.get(box)?.view?.finalize();
    const width = box.clientWidth;
    const entry = { spec, width, view: null };
    charts.set(box, entry);
    const themed = { ...fitted(wrapped(spec, width), width), config: config(width), description: nameOf(box) };
    if (spec.width === "container") themed.autosize = { type: "fit-x", contains: "padding" };
    const tooltip = { theme: isDark() ? "dark" : "light" };
    // ast: expressions are interpreted, so that the page needs no permission to evaluate text as code.
    const result = await vegaEmbed(box, themed, { actions: false, ast: true, renderer: "svg", tooltip });
    entry.view = result.view;
    box.dataset.drawn = charts.get(box) === entry ? "yes" : "";
  }

  const redraw = (when) => charts.forEach((entry, box) => when(entry, box) && draw(box, entry.spec));

  function showTheme() {
    const name = { auto: "system", light: "light", dark: "dark" }[chosen()];
    document.getElementById("theme").textContent = `Theme: ${name}`;
  }

  function remembered(theme) {
    try {
      if (theme) localStorage.setItem("report-theme", theme);
      return localStorage.getItem("report-theme");
    } catch {
      return null; // pages from the disk have no storage in some browsers
    }
  }

  if (THEMES.includes(remembered())) document.documentElement.dataset.theme = remembered();
  showTheme();
  document.getElementById("theme").addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(chosen()) + 1) % THEMES.length];
    document.documentElement.dataset.theme = next;
    remembered(next);
    showTheme();
    redraw(() => true);
  });
  system.addEventListener("change", () => redraw(() => true));
  let resizing;
  addEventListener("resize", () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => redraw((entry, box) => box.clientWidth && entry.width !== box.clientWidth), 150);
  });

  document.getElementById("copy").addEventListener("click", async (event) => {
    const text = document.getElementById("methods-text");
    try {
      await navigator.clipboard.writeText(text.textContent);
      event.target.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text);
      event.target.textContent = "Selected: press Ctrl C";
    }
  });

  const { specs, datasets: tables } = read("figures-data");
  const datasets = Object.fromEntries(Object.entries(tables).map(([name, columns]) => [name, rows(columns)]));
  const boxes = [...document.querySelectorAll("[data-figure]")];
  function drawFirst(box) {
    seen.unobserve(box);
    draw(box, { ...specs[box.dataset.figure], datasets });
  }
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) drawFirst(target);
  }, { rootMargin: "400px" });
  boxes.forEach((box) => seen.observe(box));

  // Paper cannot be scrolled or unfolded. Drawing waits for nothing but promises, which are kept before the print.
  let unfolded = [];
  addEventListener("beforeprint", () => {
    unfolded = [...document.querySelectorAll("details:not([open])")];
    unfolded.forEach((part) => { part.open = true; });
    boxes.filter((box) => !charts.has(box)).forEach(drawFirst);
  });
  addEventListener("afterprint", () => unfolded.forEach((part) => { part.open = false; }));

  return { read, draw };
})();
