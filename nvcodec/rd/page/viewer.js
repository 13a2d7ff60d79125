// The viewer: two pictures of one frame on a canvas, divided by a line that moves.

const viewer = (() => {
  const STEPS = [0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 16];
  const KEPT = 160; // decoded pictures in memory
  const canvas = byId("view");
  const context = canvas.getContext("2d");
  const cache = new Map();
  const state = { set: null, variants: [], left: null, right: null, frame: 0, wipe: 0.5, zoom: null, x: 0.5, y: 0.5, run: 0 };
  let geometry = null; // where the picture lies on the canvas, in its own pixels
  let timer = null;
  let listener = () => {};

  // A still as an image, decoded; null while the page has none for it.
  function picture(variant, number) {
    const data = state.set.variants[variant.file][number];
    const name = `${state.set.clip}/${variant.file}/${number}`;
    if (!cache.has(name)) {
      const image = new Image();
      image.src = `data:image/webp;base64,${data}`;
      cache.set(name, image.decode().then(() => image));
      if (cache.size > KEPT) cache.delete(cache.keys().next().value);
    }
    return cache.get(name);
  }

  async function update() {
    if (!state.set || !state.left || !state.right) return;
    const run = ++state.run;
    const [left, right] = await Promise.all([picture(state.left, state.frame), picture(state.right, state.frame)]);
    if (run !== state.run) return; // something newer is on its way
    paint(left, right);
    for (const ahead of [state.frame + 1, state.frame + 2]) {
      if (ahead < state.set.frames.length) { picture(state.left, ahead); picture(state.right, ahead); }
    }
  }

  function fitScale(box, ratio) {
    const most = Math.min((box * ratio) / state.set.width, (innerHeight * 0.74 * ratio) / state.set.height);
    return most >= 1 ? Math.floor(most) : most; // whole pixels stay square
  }

  function paint(left, right) {
    const ratio = window.devicePixelRatio || 1;
    const box = canvas.parentElement.clientWidth;
    const { width, height } = state.set;
    const fit = fitScale(box, ratio);
    const scale = state.zoom === null ? fit : state.zoom * ratio;
    const [cw, ch] = [Math.round(box * ratio), Math.round(Math.min(height * scale, Math.max(height * fit, innerHeight * 0.74 * ratio)))];
    if (canvas.width !== cw || canvas.height !== ch) {
      [canvas.width, canvas.height] = [cw, ch];
      canvas.style.height = `${ch / ratio}px`;
    }
    const [w, h] = [width * scale, height * scale];
    const x = w <= cw ? Math.round((cw - w) / 2) : Math.round(cw / 2 - clampCentre("x", cw / w / 2) * w);
    const y = h <= ch ? Math.round((ch - h) / 2) : Math.round(ch / 2 - clampCentre("y", ch / h / 2) * h);
    const seen = { from: Math.max(x, 0), to: Math.min(x + w, cw) };
    const split = Math.round(seen.from + (seen.to - seen.from) * state.wipe);
    geometry = { x, y, w, h, scale, ratio, seen, split, larger: w > cw + 1 || h > ch + 1 };
    context.clearRect(0, 0, cw, ch);
    context.imageSmoothingEnabled = scale < 1;
    half(left, 0, split);
    half(right, split, cw);
    if (state.wipe > 0 && state.wipe < 1) drawLine(split, ch, ratio);
    canvas.classList.toggle("pannable", geometry.larger);
    Object.assign(canvas.dataset, {
      frame: state.set.frames[state.frame], left: state.left.name, right: state.right.name, split: String(split), scale: String(scale),
    });
    labels();
    listener();

    function half(image, from, to) {
      if (to <= from) return;
      context.save();
      context.beginPath();
      context.rect(from, 0, to - from, ch);
      context.clip();
      context.drawImage(image, x, y, w, h);
      context.restore();
    }
  }

  function clampCentre(axis, least) {
    state[axis] = Math.min(Math.max(state[axis], least), 1 - least);
    return state[axis];
  }

  function drawLine(split, height, ratio) {
    context.fillStyle = "rgb(0 0 0 / 55%)";
    context.fillRect(split - 1.5 * ratio, 0, 3 * ratio, height);
    context.fillStyle = "#fff";
    context.fillRect(split - 0.75 * ratio, 0, 1.5 * ratio, height);
    const [r, cy] = [13 * ratio, height / 2];
    context.beginPath();
    context.arc(split, cy, r, 0, 7);
    context.fillStyle = "rgb(12 13 15 / 78%)";
    context.fill();
    context.lineWidth = 1.5 * ratio;
    context.strokeStyle = "#fff";
    context.stroke();
    context.beginPath();
    for (const side of [-1, 1]) {
      context.moveTo(split + side * 3.5 * ratio, cy - 4 * ratio);
      context.lineTo(split + side * 7.5 * ratio, cy);
      context.lineTo(split + side * 3.5 * ratio, cy + 4 * ratio);
    }
    context.stroke();
  }

  function labels() {
    const number = state.set.frames[state.frame];
    for (const [id, variant] of [["left-label", state.left], ["right-label", state.right]]) {
      fill(byId(id), variant.name, element("small", {}, variant.point ? variant.describe(number) : `frame ${number}`));
    }
    byId("wipe").value = state.wipe * 100;
    byId("wipe-value").textContent = `${Math.round(state.wipe * 100)} %`;
    byId("frame").max = state.set.frames.length - 1;
    byId("frame").value = state.frame;
    byId("frame").setAttribute("aria-valuetext", `frame ${number}`);
    byId("frame-value").textContent = number;
    byId("zoom-level").textContent = `${Math.round((geometry.scale / geometry.ratio) * 100)} %`;
  }

  function choose(side, name) {
    const found = state.variants.find((variant) => variant.name === name);
    if (found) state[side] = found;
    byId(side).value = state[side].name;
    update();
  }

  function swap() {
    const [left, right] = [state.left.name, state.right.name];
    choose("left", right);
    choose("right", left);
  }

  function setFrame(index) {
    state.frame = Math.min(Math.max(index, 0), state.set.frames.length - 1);
    return update();
  }

  function setWipe(value) {
    state.wipe = Math.min(Math.max(value, 0), 1);
    update();
  }

  function zoomBy(step, at = null) {
    const now = geometry.scale / geometry.ratio;
    const next = step > 0 ? STEPS.find((s) => s > now * 1.001) : STEPS.findLast((s) => s < now * 0.999);
    if (!next) return;
    if (at) { // what lies under the pointer stays there, as nearly as it can
      const [px, py] = [(at.x - geometry.x) / geometry.w, (at.y - geometry.y) / geometry.h];
      const grown = next / now;
      state.x = px + (0.5 * canvas.width - at.x) / (geometry.w * grown);
      state.y = py + (0.5 * canvas.height - at.y) / (geometry.h * grown);
    }
    state.zoom = next;
    update();
  }

  function zoomFit() {
    [state.zoom, state.x, state.y] = [null, 0.5, 0.5];
    update();
  }

  function play() {
    if (timer) return stop();
    byId("play").textContent = "❚❚ Pause";
    const wait = 1000 / Math.min(state.set.rate, 60);
    const step = async () => {
      const started = performance.now();
      await setFrame((state.frame + 1) % state.set.frames.length);
      if (timer) timer = setTimeout(step, Math.max(0, wait - (performance.now() - started)));
    };
    timer = setTimeout(step, wait);
  }

  function stop() {
    clearTimeout(timer);
    timer = null;
    byId("play").textContent = "▶ Play";
  }

  // Pointer: the line follows when it is caught, or when the picture is not larger than its window.
  const spot = (event) => {
    const at = canvas.getBoundingClientRect();
    return { x: (event.clientX - at.left) * geometry.ratio, y: (event.clientY - at.top) * geometry.ratio };
  };
  const onLine = (p) => Math.abs(p.x - geometry.split) < 18 * geometry.ratio;
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (!geometry || event.button) return;
    const p = spot(event);
    drag = { line: !geometry.larger || onLine(p), p, x: state.x, y: state.y };
    canvas.setPointerCapture(event.pointerId);
    if (drag.line) moveLine(p);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!geometry) return;
    const p = spot(event);
    canvas.classList.toggle("on-line", onLine(p));
    if (!drag) return;
    if (drag.line) return moveLine(p);
    state.x = drag.x - (p.x - drag.p.x) / geometry.w;
    state.y = drag.y - (p.y - drag.p.y) / geometry.h;
    update();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { drag = null; });
  const moveLine = (p) => setWipe((p.x - geometry.seen.from) / (geometry.seen.to - geometry.seen.from));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey || !geometry) return;
    event.preventDefault();
    zoomBy(event.deltaY < 0 ? 1 : -1, spot(event));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const act = {
      ArrowLeft: () => setWipe(state.wipe - 0.02), ArrowRight: () => setWipe(state.wipe + 0.02),
      ",": () => setFrame(state.frame - 1), ".": () => setFrame(state.frame + 1),
      "+": () => zoomBy(1), "=": () => zoomBy(1), "-": () => zoomBy(-1), 0: zoomFit, x: swap, X: swap, " ": play,
    }[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey || !state.set) return;
    event.preventDefault();
    act();
  });
  byId("wipe").addEventListener("input", (event) => setWipe(event.target.value / 100));
  byId("frame").addEventListener("input", (event) => { stop(); setFrame(Number(event.target.value)); });
  byId("left").addEventListener("change", (event) => choose("left", event.target.value));
  byId("right").addEventListener("change", (event) => choose("right", event.target.value));
  byId("zoom-in").addEventListener("click", () => zoomBy(1));
  byId("zoom-out").addEventListener("click", () => zoomBy(-1));
  byId("zoom-fit").addEventListener("click", zoomFit);
  byId("play").addEventListener("click", play);
  new ResizeObserver(() => update()).observe(canvas.parentElement);

  return {
    // set: { clip, frames, variants: { file: [still] }, width, height, rate }; variants: [{ name, file, point, describe }]
    show(set, variants) {
      const [left, right] = [state.left?.name, state.right?.name];
      const other = !state.set || state.set.clip !== set.clip;
      Object.assign(state, { set, variants });
      if (other) { stop(); Object.assign(state, { frame: 0, zoom: null, x: 0.5, y: 0.5 }); }
      for (const [side, name, first] of [["left", left, 0], ["right", right, 1]]) {
        fill(byId(side), ...variants.map((variant) => element("option", { value: variant.name }, variant.name)));
        state[side] = variants.find((variant) => variant.name === name) || variants[Math.min(first, variants.length - 1)];
        byId(side).value = state[side].name;
      }
      update();
    },
    // The still nearest to a frame of the clip.
    seek(number) {
      const away = state.set.frames.map((frame) => Math.abs(frame - number));
      setFrame(away.indexOf(Math.min(...away)));
    },
    frame: () => (state.set ? state.set.frames[state.frame] : null),
    onChange(call) { listener = call; },
  };
})();
