// The page: what is chosen, and the sections that follow from it.

const data = JSON.parse(byId("data").textContent);
const METRICS = data.metrics;
const chosen = { clip: 0, metric: METRICS[0].key, target: null, hidden: new Set(), shownFrame: null };

const clip = () => data.clips[chosen.clip];
const metric = () => METRICS.find((m) => m.key === chosen.metric);
const ourName = `nvcodec ${data.settings.effort}`;
const allSeries = () => [{ name: ourName, points: clip().ours }, ...clip().anchors].map((s, index) => ({ ...s, index }));
const ourPoint = () => clip().ours.find((p) => p.target_bpp === chosen.target);
const matchOf = (anchor) => anchor.points.find((p) => p.matches.includes(chosen.target));
const present = (points) => points.filter((p) => p[chosen.metric] !== null && p[chosen.metric] !== undefined);
const valueText = (value, m = metric()) => `${fixed(value, 2)} ${m.unit}`;

function refresh() {
  const c = clip();
  if (!c.ours.some((p) => p.target_bpp === chosen.target)) chosen.target = c.ours[Math.floor((c.ours.length - 1) / 2)].target_bpp;
  if (!present(c.ours).length) chosen.metric = METRICS[0].key;
  choice(byId("clip-choice"), data.clips.map((d, n) => ({ value: n, label: d.name })), chosen.clip, (n) => { chosen.clip = n; refresh(); });
  byId("clip-choice").hidden = data.clips.length < 2;
  choice(byId("metric-choice"), METRICS.filter((m) => c.ours[0][m.key] !== null).map((m) => ({ value: m.key, label: m.label, title: m.about })),
    chosen.metric, (key) => { chosen.metric = key; refresh(); });
  for (const host of document.querySelectorAll(".rate-choice")) {
    choice(host, c.ours.map((p) => ({ value: p.target_bpp, label: `${bppText(p.bpp)} bpp` })), chosen.target,
      (target) => { chosen.target = target; refresh(); });
  }
  byId("clip-line").textContent = `${c.name}: ${c.width}×${c.height}, ${c.frame_count} frame${c.frame_count > 1 ? "s" : ""} at ${fixed(c.frames_per_second, 2)} a second`;
  curves();
  bdTable();
  pictures();
  frameCharts();
  whereBars();
  numbers();
}

// Curves and BD figures

function curves() {
  const series = allSeries();
  fill(byId("legend"), ...series.map((s) => element("button", {
    type: "button", "aria-pressed": String(!chosen.hidden.has(s.name)),
    onclick: (event) => {
      const name = s.name;
      if (!chosen.hidden.delete(name)) chosen.hidden.add(name);
      curves();
      frameCharts();
      byId("legend").children[s.index].focus({ preventScroll: true });
      event.preventDefault();
    },
  }, marker(s.index), s.name)));
  lineChart(byId("rd-chart"), {
    label: `${metric().label} against bits per pixel`,
    series: series.filter((s) => !chosen.hidden.has(s.name)).map((s) => ({
      ...s, points: present(s.points).map((p) => ({ x: p.bpp, y: p[chosen.metric], point: p })).sort((a, b) => a.x - b.x),
    })),
    x: { name: "bits per pixel", log: byId("log-rate").checked }, y: { name: `${metric().label} (${metric().unit})` },
    mode: "nearest",
    tipFor: ([[s, p]]) => [element("b", {}, marker(s.index), s.name), pointTip(p.point)],
    onPick: (p) => {
      const target = p.point.target_bpp ?? p.point.matches[0];
      if (target !== undefined) { chosen.target = target; refresh(); }
    },
  });
}

function pointTip(p) {
  const rows = [["rate", `${bppText(p.bpp)} bpp`], ["", `${fixed(p.kbps, 1)} kbit/s`], ["size", `${grouped(p.bytes)} bytes`]];
  rows.push(...METRICS.filter((m) => p[m.key] !== null).map((m) => [m.label, m.key === "ms_ssim_db" ? `${fixed(p.ms_ssim, 4)} (${valueText(p[m.key], m)})` : valueText(p[m.key], m)]));
  rows.push(p.crf === undefined ? ["asked for", `${p.target_bpp} bpp`] : ["rate factor", p.crf]);
  return element("table", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, cell)))));
}

function bdTable() {
  const m = metric();
  byId("bd-title").textContent = `Against the anchors, ${m.label}`;
  const c = clip();
  if (!c.anchors.length) return void fill(byId("bd-table"), element("p", { class: "muted" }, "No anchors were asked for."));
  const rows = c.anchors.map((anchor) => {
    const { rate, quality } = anchor.bd[chosen.metric] || {};
    return [
      element("span", { class: "legend-name" }, anchor.name, element("span", { class: "sub" }, overlapText(rate, m)),
        anchor.misses.length ? element("span", { class: "sub" }, `does not reach our ${anchor.misses.join(", ")}`) : null),
      figure(rate, (v) => `${signed(v, 1)} %`, (v) => v < 0),
      figure(quality, (v) => `${signed(v, 2)} ${m.unit}`, (v) => v > 0),
    ];
  });
  const parts = [table(["anchor", "BD-rate", m.key.startsWith("psnr") ? "BD-PSNR" : "BD-quality"], rows)];
  if (data.clips.length > 1) {
    const means = data.mean_bd.map((mean) => {
      const { rate, quality } = mean.metrics[chosen.metric];
      const count = (found) => element("span", { class: "sub" }, `${found.clips} of ${data.clips.length} clips`);
      return [mean.name, element("span", {}, rate.value === null ? "–" : `${signed(rate.value, 1)} %`, count(rate)),
        element("span", {}, quality.value === null ? "–" : `${signed(quality.value, 2)} ${m.unit}`, count(quality))];
    });
    parts.push(element("h3", { style: { marginTop: "18px" } }, "Mean over the clips"), table(["anchor", "BD-rate", "BD-quality"], means));
  }
  parts.push(element("p", { class: "muted small" }, "BD-rate below zero: fewer bits than the anchor for the same quality. ",
    "The anchor's bits are those of its elementary stream, ours those of the whole file."));
  fill(byId("bd-table"), ...parts);
}

function figure(delta, write, isGood) {
  if (!delta || delta.value === null) return element("span", { class: "muted", title: delta ? delta.note : "" }, "none");
  return element("span", { class: `big ${isGood(delta.value) ? "good" : "bad"}` }, write(delta.value));
}

function overlapText(delta, m) {
  if (!delta || delta.value === null) return delta ? delta.note : "";
  const range = `${fixed(delta.low, 1)} to ${fixed(delta.high, 1)} ${m.unit}`;
  return `over ${range}, ${fixed(100 * delta.overlap_of_test, 0)}\u00a0% of our curve${delta.note ? `; ${delta.note}` : ""}`;
}

// Pictures

function pictures() {
  const c = clip();
  const stills = c.stills;
  const ours = ourPoint();
  const variants = [{ name: "Source", file: "source", point: null }];
  const add = (name, p) => variants.push({
    name, file: p.file, point: p,
    describe: (n) => `frame ${n}: ${fixed(p.by_frame.psnr_yuv_611[n], 2)} dB 6:1:1; all: ${bppText(p.bpp)} bpp` +
      (p === ours ? "" : `, ${signed(100 * (p.bytes / ours.bytes - 1), 1)} % bits`),
  });
  add(ourName, ours);
  for (const anchor of c.anchors) {
    const match = matchOf(anchor);
    if (match) add(anchor.name, match);
  }
  viewer.show({ clip: chosen.clip, frames: stills.frames, variants: stills.variants, width: c.width, height: c.height, rate: c.frames_per_second }, variants);
  const which = stills.frames.length === c.frame_count ? `All ${c.frame_count} frames` : `${stills.frames.length} of ${c.frame_count} frames, evenly spaced`;
  const loss = stills.lossless
    ? "as lossless WebP: the decoded pictures to the last bit"
    : `as WebP of quality ${stills.quality}, which adds a loss of its own: no still is below ${fixed(stills.least_psnr, 1)} dB (RGB PSNR) against the decoded picture it shows`;
  byId("stills-note").textContent = `${which}, ${loss}. 8-bit RGB by ${c.rgb_matrix}. An anchor is shown at its point nearest to our bits.`;
}

// Frame by frame

function frameCharts() {
  const c = clip();
  const m = metric();
  const key = m.key === "ms_ssim_db" ? "ms_ssim" : m.key;
  const rows = [{ name: ourName, index: 0, point: ourPoint() },
    ...c.anchors.map((anchor, n) => ({ name: anchor.name, index: n + 1, point: matchOf(anchor) }))]
    .filter((row) => row.point && !chosen.hidden.has(row.name));
  const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
  const chart = (host, label, y, values, write) => lineChart(byId(host), {
    label, mode: "column", here: viewer.frame(),
    series: rows.map((row) => ({ name: row.name, index: row.index, points: values(row.point).map((v, n) => ({ x: n, y: v })) })),
    x: { name: "frame", integer: true }, y,
    onPick: (p) => viewer.seek(p.x),
    tipFor: (found) => [element("b", {}, `frame ${found[0][1].x}`), element("table", {}, ...found.map(([s, p]) => element("tr", {},
      element("td", {}, element("span", { style: { color: colour(s.index) } }, "■ "), s.name), element("td", {}, write(p.y)))))],
  });
  byId("frame-quality-title").textContent = key === "ms_ssim" ? "MS-SSIM" : m.label;
  chart("frame-quality", `${m.label} of each frame`, { name: key === "ms_ssim" ? "MS-SSIM" : `${m.label} (${m.unit})` },
    (p) => p.by_frame[key], (v) => (key === "ms_ssim" ? fixed(v, 4) : valueText(v)));
  chart("frame-bits", "Bits of each frame", { name: "bits (log)", log: true }, (p) => p.frame_bits.map((bits) => Math.max(bits, 1)), bitsText);
  const ours = ourPoint();
  const rest = 8 * ours.bytes - ours.frame_bits.reduce((sum, bits) => sum + bits, 0);
  byId("frames-note").textContent = `Ours at ${bppText(ours.bpp)} bpp, anchors at their points nearest to it: ` +
    rows.map((row) => `${row.name} ${bitsText(mean(row.point.frame_bits))} a frame`).join(", ") +
    `. Our frames share a network, and with headers and container it takes ${bitsText(rest)}, not shown here; frames that are coded ` +
    "together share their bits evenly. A click shows the frame above.";
}

// Where the bits go

function whereBars() {
  const names = { weights: "network", motion: "motion", blocks: "blocks", container: "headers, container" };
  const tints = ["var(--network)", "var(--motion)", "var(--blocks)", "var(--container)"];
  const parts = Object.values(names).map((name, n) => [name, tints[n]]);
  const bytes = (p) => Object.keys(names).map((purpose) => p.bytes_by_purpose[purpose]);
  fill(byId("where-legend"), ...parts.map(([name, tint]) => element("span", { class: "item" },
    element("span", { class: "swatch", style: { background: tint } }), name)));
  fill(byId("where-bars"), ...clip().ours.map((p) => element("div", { class: "stack-row" },
    element("span", {}, `${bppText(p.bpp)} bpp`),
    element("div", { class: "stack", role: "group", "aria-label": `${bppText(p.bpp)} bpp` }, ...bytes(p).map((size, n) => {
      const share = (100 * size) / p.bytes;
      const tell = (event) => {
        const at = event.target.getBoundingClientRect();
        tip.show(event.clientX || at.left + at.width / 2, event.clientY || at.top + at.height / 2,
          element("b", {}, parts[n][0]), `${grouped(size)} bytes, ${fixed(share, 1)} % of the file`);
      };
      return element("button", {
        type: "button", "aria-label": `${parts[n][0]}: ${fixed(share, 1)} %`, style: { background: parts[n][1], flex: `${share} 0 0` },
        onpointermove: tell, onfocus: tell, onpointerleave: tip.hide, onblur: tip.hide,
      });
    })),
    element("span", { class: "total" }, `${grouped(p.bytes)} bytes`))));
  fill(byId("where-table"), table(["rate", ...parts.map(([name]) => name), "file"],
    clip().ours.map((p) => [`${bppText(p.bpp)} bpp`, ...bytes(p).map((size) => fixed(size, 1)), grouped(p.bytes)])));
}

// Numbers

function numbers() {
  const used = METRICS.filter((m) => clip().ours[0][m.key] !== null && m.key !== "ms_ssim_db");
  const columns = ["codec", "setting", "bytes", "bpp", "kbit/s", ...used.map((m) => `${m.label} (${m.unit})`), "MS-SSIM", "encoding"];
  const rows = allSeries().flatMap((s) => s.points.map((p) => [s.name,
    p.crf === undefined ? `${p.target_bpp} bpp` : `crf ${p.crf}`, grouped(p.bytes), bppText(p.bpp), fixed(p.kbps, 1),
    ...used.map((m) => fixed(p[m.key], 2)), fixed(p.ms_ssim, 4), `${fixed(p.encode_seconds, 1)} s`]));
  fill(byId("points-table"), table(columns, rows));
  fill(byId("method"), pairs([...Object.entries(data.method), ["RGB matrix of this clip", clip().rgb_matrix]]));
  const settings = [[ourName, element("code", {}, data.our_settings)]];
  for (const anchor of clip().anchors) {
    settings.push([anchor.name, element("code", {}, anchor.options)]);
    if (anchor.settings_text) settings.push(["", element("code", {}, anchor.settings_text)]);
  }
  fill(byId("settings"), pairs(settings));
  const e = data.environment;
  const versions = { nvcodec: `${e.nvcodec} (code ${e.codec_code})`, Python: e.python, ...e.packages, ...e.encoders, machine: `${e.system}, ${e.machine}` };
  fill(byId("versions"), pairs([["command", element("code", {}, data.command)], ["written", data.created], ...Object.entries(versions)]));
}

byId("subtitle").textContent = `nvcodec ${data.environment.nvcodec}, effort ${data.settings.effort}; ` +
  `${data.clips.length} clip${data.clips.length > 1 ? "s" : ""}; ${data.created.slice(0, 10)}`;
byId("log-rate").addEventListener("change", curves);
byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
viewer.onChange(() => {
  if (chosen.shownFrame === viewer.frame()) return;
  chosen.shownFrame = viewer.frame();
  frameCharts();
});
refresh();
