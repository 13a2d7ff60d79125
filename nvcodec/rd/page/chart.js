// A line chart in SVG. One function: what is drawn is a pure function of its description.
//
// lineChart(host, { series, x, y, mode, here, onPick, tipFor, label })
//   series   [{ name, index, points: [{ x, y, ... }] }]; index chooses colour and marker
//   x, y     { name, log, integer, format }
//   mode     "nearest": the nearest point answers; "column": all points at the nearest x do
//   here     an x that is marked, or null
//   onPick   called with a point when it is clicked, or chosen with Enter

function lineChart(host, chart) {
  const MARGIN = { left: 58, right: 16, top: 14, bottom: 44 };
  let focus = null; // { series, at } by keyboard

  function draw() {
    const { width, height } = host.getBoundingClientRect();
    if (width < 80 || height < 60) return;
    const box = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
    const all = chart.series.flatMap((s) => s.points);
    if (!all.length) return void fill(host, element("p", { class: "muted" }, "Nothing to show."));
    const sx = scale(all.map((p) => p.x), chart.x, box.left, box.right);
    const sy = scale(all.map((p) => p.y), chart.y, box.bottom, box.top);
    const svg = element("svg:svg", {
      viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img", "aria-label": `${chart.label}. Arrow keys read the values.`,
    });
    const grid = sy.ticks.map((v) => line("grid", box.left, sy(v), box.right, sy(v)))
      .concat(sx.ticks.map((v) => line("grid", sx(v), box.top, sx(v), box.bottom)));
    const names = sy.ticks.map((v) => text(box.left - 9, sy(v) + 4, "end", sy.text(v)))
      .concat(sx.ticks.map((v) => text(sx(v), box.bottom + 18, "middle", sx.text(v))));
    names.push(text((box.left + box.right) / 2, height - 6, "middle", chart.x.name, "axis-name"));
    names.push(element("svg:text", {
      transform: `translate(13 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle", class: "axis-name",
    }, chart.y.name));
    const here = chart.here === null || chart.here === undefined ? null : line("here", sx(chart.here), box.top, sx(chart.here), box.bottom);
    const many = chart.series.some((s) => s.points.length > 60);
    const curves = chart.series.map((s) => element("svg:g", { "data-series": s.name },
      element("svg:path", {
        class: chart.mode === "column" ? "curve thin" : "curve", style: { stroke: colour(s.index) },
        d: s.points.map((p, n) => `${n ? "L" : "M"}${sx(p.x).toFixed(2)},${sy(p.y).toFixed(2)}`).join(""),
      }),
      ...(many ? [] : s.points.map((p) => mark(s, p, chart.mode === "column" ? 3 : 4.6)))));
    const over = element("svg:g", {});
    fill(svg, ...grid, line("axis", box.left, box.bottom, box.right, box.bottom), ...names, here, ...curves, over);
    fill(host, svg);

    function mark(s, p, radius) {
      return element("svg:path", {
        class: "mark", d: shapePath(s.index, radius), transform: `translate(${sx(p.x)} ${sy(p.y)})`, style: { fill: colour(s.index) },
      });
    }
    function show(s, p) {
      const column = chart.mode === "column";
      const found = column ? chart.series.map((t) => [t, t.points.find((q) => q.x === p.x)]).filter(([, q]) => q) : [[s, p]];
      fill(over, line("cursor", sx(p.x), box.top, sx(p.x), box.bottom),
        column ? null : line("cursor", box.left, sy(p.y), box.right, sy(p.y)),
        ...found.map(([t, q]) => element("svg:circle", { class: "halo", r: 8, cx: sx(q.x), cy: sy(q.y), style: { stroke: colour(t.index) } })));
      const at = svg.getBoundingClientRect();
      tip.show(at.left + sx(p.x), at.top + sy(p.y), ...chart.tipFor(found));
    }
    function nearest(event) {
      const at = svg.getBoundingClientRect();
      const [mx, my] = [event.clientX - at.left, event.clientY - at.top];
      let best = null;
      for (const s of chart.series) {
        for (const p of s.points) {
          const away = Math.abs(sx(p.x) - mx) + (chart.mode === "column" ? 0.001 : 1) * Math.abs(sy(p.y) - my);
          if (!best || away < best.away) best = { away, s, p };
        }
      }
      return best;
    }
    const clear = () => { fill(over); tip.hide(); };
    svg.addEventListener("pointermove", (event) => { const b = nearest(event); if (b) show(b.s, b.p); });
    svg.addEventListener("pointerleave", clear);
    svg.addEventListener("blur", () => { focus = null; clear(); });
    svg.addEventListener("click", (event) => { const b = nearest(event); if (b && chart.onPick) chart.onPick(b.p); });
    svg.addEventListener("keydown", (event) => {
      const [dx, ds] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] || [0, 0];
      if (event.key === "Escape") { focus = null; return clear(); }
      if (event.key === "Enter" && focus && chart.onPick) return chart.onPick(chart.series[focus.series].points[focus.at]);
      if (!dx && !ds) return;
      event.preventDefault();
      focus = focus || { series: 0, at: dx > 0 ? -1 : 1 };
      focus.series = (focus.series + ds + chart.series.length) % chart.series.length;
      const points = chart.series[focus.series].points;
      focus.at = Math.max(0, Math.min(points.length - 1, focus.at + dx));
      show(chart.series[focus.series], points[focus.at]);
    });
  }

  if (host.watch) host.watch.disconnect();
  host.watch = new ResizeObserver(draw);
  host.watch.observe(host);
  draw();
}

function line(kind, x1, y1, x2, y2) {
  return element("svg:line", { class: kind, x1, y1, x2, y2 });
}

function text(x, y, anchor, content, kind = "") {
  return element("svg:text", { x, y, "text-anchor": anchor, class: kind }, content);
}

// Values to positions, with round numbers as ticks.
function scale(values, axis, from, to) {
  let low = Math.min(...values);
  let high = Math.max(...values);
  const log = Boolean(axis.log) && low > 0;
  const flat = log ? Math.log(high / low) < 1e-9 : high - low < 1e-9;
  if (flat) { [low, high] = log ? [low / 1.5, high * 1.5] : [low - 1, high + 1]; }
  const [a, b] = log ? [Math.log(low), Math.log(high)] : [low, high];
  const pad = axis.integer ? 0 : (b - a) * 0.05;
  const at = (v) => from + (((log ? Math.log(v) : v) - a + pad) / (b - a + 2 * pad)) * (to - from);
  const room = Math.max(3, Math.floor(Math.abs(to - from) / (from < to ? 85 : 46)));
  const inside = (v) => at(v) >= Math.min(from, to) - 0.5 && at(v) <= Math.max(from, to) + 0.5;
  at.ticks = (log ? logTicks(low, high, room) : linearTicks(low - pad, high + pad, room, axis.integer)).filter(inside);
  at.text = axis.format || ((v) => tickText(v));
  return at;
}

function linearTicks(low, high, room, integer) {
  const rough = (high - low) / room;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  if (integer) step = Math.max(1, step);
  const ticks = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) ticks.push(Math.abs(v) < step * 1e-6 ? 0 : v);
  return ticks;
}

function logTicks(low, high, room) {
  const first = Math.floor(Math.log10(low)) - 1;
  const decades = Math.ceil(Math.log10(high)) - first;
  const choices = [[1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9], [1, 1.5, 2, 3, 5, 7], [1, 2, 3, 5], [1, 2, 5], [1, 3], [1]];
  let ticks = [];
  for (const steps of choices) {
    ticks = [];
    for (let e = 0; e <= decades; e++) {
      for (const m of steps) {
        const v = Number(`${m}e${first + e}`);
        if (v >= low * 0.93 && v <= high * 1.07) ticks.push(v);
      }
    }
    if (ticks.length <= room) break;
  }
  const every = Math.ceil(ticks.length / room); // many decades: some of them
  return ticks.filter((_, n) => n % every === 0);
}

const tickText = (v) => (Math.abs(v) >= 1000 ? `${Number((v / 1000).toPrecision(4))}k` : String(Number(v.toPrecision(6)))).replace("-", "−");
