"use strict";
(() => {
  const root = document.documentElement;
  const look = () => {
    const style = getComputedStyle(root);
    const of = (name) => style.getPropertyValue(name).trim();
    return { text: of("--text"), line: of("--line"), quiet: of("--quiet") };
  };
  const config = { responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtonsToRemove: ["lasso2d", "select2d"] };
  const clone = (value) => JSON.parse(JSON.stringify(value));

  // Plotly knows no style sheets: each axis and scene is given the page's colours.
  const dressed = (layout) => {
    const { text, line, quiet } = look();
    const made = clone(layout);
    made.modebar = { bgcolor: "rgba(0,0,0,0)", color: quiet, activecolor: text };
    Object.assign(made, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" });
    made.font = { ...(made.font || {}), color: text, family: "system-ui, sans-serif" };
    const axes = Object.keys(made).filter((key) => /^[xy]axis\d*$/.test(key));
    for (const key of new Set([...axes, "xaxis", "yaxis"])) {
      made[key] = { zerolinecolor: line, gridcolor: line, linecolor: line, automargin: true, ...(made[key] || {}) };
    }
    for (const key of Object.keys(made).filter((name) => /^scene\d*$/.test(name))) {
      for (const axis of ["xaxis", "yaxis", "zaxis"]) {
        made[key][axis] = { gridcolor: line, color: text, ...(made[key][axis] || {}) };
      }
    }
    return made;
  };

  const redraw = [];
  const draw = () => redraw.forEach((again) => again());

  document.querySelectorAll("figure > .chart").forEach((place) => {
    const { data, layout } = JSON.parse(place.nextElementSibling.textContent);
    redraw.push(() => Plotly.react(place, clone(data), dressed(layout), config));
  });

  // Fields come as 16-bit levels in base64; 65535 is unknown, 65534 solid.
  const UNKNOWN = 65535, SOLID = 65534;
  const unpacked = (field, value) => {
    const bytes = Uint8Array.from(atob(field.packed), (letter) => letter.charCodeAt(0));
    const levels = new Uint16Array(bytes.buffer);
    const [rows, columns] = field.shape;
    return Array.from({ length: rows }, (_, row) =>
      Array.from(levels.subarray(row * columns, (row + 1) * columns), value));
  };
  const known = (field) => unpacked(field, (level) => (level >= SOLID ? null : field.low + level * field.step));

  const along = ({ first, step }, count) => Array.from({ length: count }, (_, index) => first + index * step);

  // A value's place among bounds of classes, between 0 and the number of bounds, even between two bounds.
  const classed = (value, bounds) => {
    if (value === null || !bounds.length) return value;
    if (value < bounds[0]) return 0.5 * value / bounds[0] * 0.98;
    let index = 0;
    while (index + 1 < bounds.length && value >= bounds[index + 1]) index += 1;
    return index + 1.5;
  };
  const steps = (colours, count) => {
    const stops = [];
    for (let index = 0; index < count; index += 1) {
      const colour = colours[Math.round(index * (colours.length - 1) / Math.max(count - 1, 1))][1];
      stops.push([index / count, colour], [(index + 1) / count, colour]);
    }
    return stops;
  };

  const trace = (panel, field, number, title, last) => {
    const shown = known(field);
    const discrete = panel.bounds.length + panel.labels.length > 0;
    const made = {
      type: "heatmap", z: discrete ? shown.map((row) => row.map((value) => classed(value, panel.bounds))) : shown,
      x: along(field.x, field.shape[1]), y: along(field.y, field.shape[0]),
      xaxis: `x${number || ""}`, yaxis: `y${number || ""}`, name: title, hoverongaps: false,
      hovertemplate: `%{x:.5~g}, %{y:.5~g}<br>%{customdata:.4~g} ${panel.unit}<extra>${title}</extra>`,
      customdata: shown, showscale: last,
    };
    const bar = { title: { text: panel.unit, side: "right" }, thickness: 12, len: 0.9 };
    if (discrete) {
      const count = panel.bounds.length + 1;
      made.colorscale = steps(panel.colours, count);
      if (panel.under) made.colorscale = made.colorscale.map(([at, colour], i) => [at, i < 2 ? panel.under : colour]);
      Object.assign(made, { zmin: 0, zmax: count });
      const [names, at] = panel.labels.length ? [panel.labels, 0.5] : [panel.bounds.map(String), 1];
      made.colorbar = { ...bar, tickvals: names.map((_, index) => index + at), ticktext: names };
    } else {
      Object.assign(made, { colorscale: panel.colours, zmin: panel.low, zmax: panel.high, colorbar: bar });
    }
    return made;
  };

  document.querySelectorAll("figure.viewer").forEach((figure) => {
    const viewer = JSON.parse(figure.querySelector("script").textContent);
    const [form, place, live] = ["form", ".maps", ".live"].map((name) => figure.querySelector(name));
    const standing = () => Object.fromEntries(viewer.axes.map((axis) => {
      const control = form.elements[axis.name];
      const value = control.type === "range" ? axis.values[control.value] : control.value;
      if (control.type === "range") control.parentElement.querySelector("output").textContent = value;
      return [axis.name, value];
    }));
    const show = () => {
      const here = standing();
      const fits = (field) => Object.entries(field.place).every(([name, value]) => here[name] === value);
      const panels = viewer.panels.filter((panel) =>
        panel.modality === null || Object.values(here).includes(panel.modality));
      const found = panels.map((panel) => [panel, viewer.fields.find((f) => f.panel === panel.name && fits(f))])
        .filter(([, field]) => field);
      const columns = Math.min(4, Math.max(1, found.length));
      const rows = Math.ceil(found.length / columns);
      const width = Math.max(320, place.clientWidth);
      const [, first] = found[0] || [];
      const ratio = first ? viewer.aspect * Math.abs(first.y.step * first.shape[0]) / Math.abs(first.x.step * first.shape[1]) : 1;
      const layout = {
        grid: { rows: Math.max(rows, 1), columns, pattern: "independent", xgap: 0.12, ygap: 0.28 },
        margin: { l: 45, r: 10, t: 30, b: 40 }, showlegend: false, annotations: [], uirevision: "kept",
        height: Math.min(900, 90 + rows * Math.min(420, 55 + (width - 80) / columns * Math.min(ratio, 1.6))),
      };
      const key = (panel) => JSON.stringify([panel.colours, panel.low, panel.high, panel.bounds]);
      const scales = new Map();
      found.forEach(([panel], index) => scales.set(key(panel), index));
      const traces = found.map(([panel, field], index) => {
        const number = index ? index + 1 : "";
        layout[`xaxis${number}`] = { title: { text: viewer.xTitle }, constrain: "domain", matches: index ? "x" : undefined };
        layout[`yaxis${number}`] = {
          title: { text: index % columns ? "" : viewer.yTitle }, scaleanchor: `x${number}`, scaleratio: viewer.aspect,
          constrain: "domain", matches: index ? "y" : undefined,
        };
        layout.annotations.push({
          text: panel.name, showarrow: false, xref: `x${number} domain`, yref: `y${number} domain`, x: 0.5, y: 1.02,
          yanchor: "bottom", font: { size: 13 },
        });
        return trace(panel, field, number, panel.name, false);
      });
      // One bar for each common scale, side by side at the right.
      const units = [...scales.values()].map((index) => found[index][0].unit);
      [...scales.values()].forEach((index, order) => {
        const [panel] = found[index];
        traces[index].showscale = true;
        traces[index].colorbar.x = 1.01 + 0.09 * order;
        // Two scales of one unit are told apart by what they are of.
        if (units.indexOf(panel.unit) < order) {
          const [first] = found.find(([other]) => key(other) === key(panel));
          traces[index].colorbar.title.text = `${first.name}, ${panel.unit}`;
        }
      });
      layout.margin.r = 20 + 75 * scales.size;
      const placed = found.map(([, field], index) => [field, index ? index + 1 : ""]);
      placed.filter(([field]) => field.solid).forEach(([field, number]) => traces.push({
        type: "heatmap", z: unpacked(field, (level) => (level === SOLID ? 1 : null)), hoverinfo: "skip", showscale: false,
        x: along(field.x, field.shape[1]), y: along(field.y, field.shape[0]), xaxis: `x${number}`, yaxis: `y${number}`,
        colorscale: [[0, "#777777"], [1, "#777777"]],
      }));
      placed.filter(([field]) => field.marks.length).forEach(([{ marks }, number]) => traces.push({
        type: "scatter", mode: "markers", x: marks.map(([x]) => x), y: marks.map(([, y]) => y), hoverinfo: "x+y",
        xaxis: `x${number}`, yaxis: `y${number}`,
        marker: {
          symbol: marks.map((mark) => (mark.length > 2 ? "arrow" : "triangle-up")), size: 12, color: "#d55e00",
          angle: marks.map(([, , azimuth]) => azimuth || 0), line: { color: "#ffffff", width: 1.5 },
        },
      }));
      Plotly.react(place, traces, dressed(layout), config);
      live.textContent = found.length ? `Showing ${Object.entries(here).map(([n, v]) => `${n} ${v}`).join(", ")}`
        : "No maps here; choose other values";
    };
    form.addEventListener("input", show);
    form.addEventListener("submit", (event) => event.preventDefault());
    redraw.push(show);
  });

  document.querySelectorAll("table").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const sort = (column, descending) => {
      const keyed = [...body.rows].map((row) => {
        const cell = row.cells[column];
        return [row, "key" in cell.dataset ? Number(cell.dataset.key) : null, cell.textContent];
      });
      const sign = descending ? -1 : 1;
      keyed.sort(([, a, textA], [, b, textB]) => {
        if (a === null && b === null) return sign * textA.localeCompare(textB, undefined, { numeric: true });
        if (a === null || b === null) return a === null ? 1 : -1;
        return sign * (a - b);
      });
      body.append(...keyed.map(([row]) => row));
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
    };
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () =>
      sort(column, head.getAttribute("aria-sort") === "ascending")));
    const first = heads.findIndex((head) => head.textContent === table.dataset.sort);
    if (first >= 0) sort(first, false);
  });

  const theme = document.getElementById("theme");
  const choose = (dark) => {
    root.dataset.theme = dark ? "dark" : "light";
    theme.textContent = dark ? "Light" : "Dark";
    theme.setAttribute("aria-pressed", String(dark));
    if (window.Plotly) draw();
  };
  theme.addEventListener("click", () => choose(root.dataset.theme !== "dark"));
  choose(window.matchMedia("(prefers-color-scheme: dark)").matches);
})();
