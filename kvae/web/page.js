// What one sees: the latent plane, the sliders, the pictures of a seed. A worker computes; this file shows.
// All names and texts of a model enter the page as text (textContent), never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const model = JSON.parse($("model").textContent);
const [height, width, channels = 1] = model.image_shape;
const D = model.latent_dim;
const { plane } = model;

// --- The worker

// A worker is made of the text of the page, because a page that is opened as a file may not read other files.
const worker = new Worker(URL.createObjectURL(new Blob([$("engine").textContent], { type: "text/javascript" })));
const waiting = new Map();
let lastId = 0;

// Asks the worker; `part` is called with every part of a long answer.
function ask(question, values = {}, part = () => {}) {
  const id = ++lastId;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject, part });
    worker.postMessage({ id, question, values });
  });
}

worker.onmessage = ({ data }) => {
  const { resolve, reject, part } = waiting.get(data.id);
  if ("part" in data) return part(data.part);
  waiting.delete(data.id);
  if ("error" in data) reject(new Error(data.error));
  else resolve(data.answer);
};

// Calls an asynchronous function for the newest value only, while earlier calls are still under way.
function newest(action) {
  let busy = false, next;
  return async (value) => {
    next = value;
    if (busy) return;
    busy = true;
    while (next !== undefined) {
      const current = next;
      next = undefined;
      await action(current);
    }
    busy = false;
  };
}

// --- Pictures

const still = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");

// Bytes of an image as ImageData. `ink` is [paper, ink] in RGB, for grey images in the colours of the page.
function imageData(bytes, ink) {
  const data = new ImageData(width, height);
  for (let p = 0, to = 0; p < width * height; p++) {
    for (let c = 0; c < 3; c++) {
      const value = bytes[channels === 1 ? p : p * channels + c];
      data.data[to++] = ink && channels === 1 ? ink[0][c] + ((ink[1][c] - ink[0][c]) * value) / 255 : value;
    }
    data.data[to++] = 255;
  }
  return data;
}

function paint(canvas, bytes) {
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(imageData(bytes), 0, 0);
}

// Images in rows on a white canvas, enlarged to at most 800 pixels: the layout of `kvae sample`. With draws, the means
// stand above them.
function paintSheet(canvas, images, draws) {
  const columns = Math.min(images.length <= 10 ? 10 : Math.ceil(Math.sqrt(images.length)), images.length);
  const rows = Math.ceil(images.length / columns);
  const blocks = draws ? [images, draws] : [images];
  const blockHeight = rows * (height + 1) - 1;
  const small = document.createElement("canvas");
  small.width = columns * (width + 1) - 1;
  small.height = blocks.length * blockHeight + (blocks.length - 1) * 3;
  const context = small.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, small.width, small.height);
  blocks.forEach((block, b) => {
    block.forEach((bytes, i) => {
      const top = b * (blockHeight + 3) + Math.floor(i / columns) * (height + 1);
      context.putImageData(imageData(bytes), (i % columns) * (width + 1), top);
    });
  });
  const factor = Math.max(1, Math.floor(800 / small.width));
  canvas.width = small.width * factor;
  canvas.height = small.height * factor;
  const large = canvas.getContext("2d");
  large.imageSmoothingEnabled = false;
  large.drawImage(small, 0, 0, canvas.width, canvas.height);
}

function save(canvas, name) {
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }, "image/png");
}

// --- The chosen numbers

let z = new Array(D).fill(0);
const reach = plane ? Math.max(...plane.high, ...plane.low.map((value) => -value)) : 3.5;
const subscript = (d) => `z${String(d + 1).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit])}`;
const rounded = (value) => value.toFixed(2).replace("-", "−");

const sliders = model.order.map((d) => {
  const label = document.createElement("label");
  const name = document.createElement("span");
  const input = document.createElement("input");
  const output = document.createElement("output");
  name.textContent = subscript(d);
  if (model.kl_per_dimension) label.title = `${model.kl_per_dimension[d].toFixed(2)} nats of information per picture`;
  Object.assign(input, { type: "range", min: -reach, max: reach, step: 0.01, id: `slider-${d}` });
  input.addEventListener("input", () => choose(z.map((value, i) => (i === d ? Number(input.value) : value))));
  label.append(name, input, output);
  $("sliders").append(label);
  return { d, input, output };
});

const decodeNewest = newest(async (point) => paint($("image"), await ask("decode", { z: point })));

let toldLater;
function choose(point) {
  z = point;
  for (const { d, input, output } of sliders) {
    input.value = z[d];
    output.textContent = rounded(z[d]);
  }
  decodeNewest(z);
  if (plane) drawPlane();
  clearTimeout(toldLater); // a screen reader need not hear every step of a drag
  toldLater = setTimeout(() => ($("where").textContent = describe(z)), 250);
}

function describe(point) {
  const numbers = D <= 3 ? `At ${point.map((value, d) => `${subscript(d)} = ${rounded(value)}`).join(", ")}` : `At the ${D} numbers below`;
  return `${numbers}${nearby(point)}.`;
}

// The class of most of the encoded test images around a point, in words.
function nearby([a, b]) {
  if (!points || !labels) return "";
  const radius = (plane.high[0] - plane.low[0]) / 30;
  const counts = new Array(plane.classes.length).fill(0);
  points.forEach(([x, y], i) => {
    if (Math.hypot(x - a, y - b) < radius) counts[labels[i]]++;
  });
  const most = Math.max(...counts);
  return most === 0 ? ", where no test picture is near" : `, where most test pictures are of class ${plane.classes[counts.indexOf(most)]}`;
}

// --- The plane

const LIGHT = ["#332288", "#e6550d", "#117733", "#aa4499", "#3b7bb8", "#000000", "#4a8a22", "#882255", "#c4505f", "#b8327a"];
const DARK = ["#9d90f0", "#ff9a5c", "#4fc97f", "#e08ad6", "#86bdf0", "#ffffff", "#a5dc6f", "#e5709f", "#ff9aa8", "#ff7fc0"];
const colour = (label) => (dark.matches ? DARK : LIGHT)[label % LIGHT.length];
const TILES = 15; // pictures per side of the plane
const shownClasses = new Set();
let points, labels, tiles = [];

const toScreen = ([a, b], side) => [
  ((a - plane.low[0]) / (plane.high[0] - plane.low[0])) * side,
  ((plane.high[1] - b) / (plane.high[1] - plane.low[1])) * side,
];

function rgb(name) {
  const value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => parseInt(value.slice(at, at + 2), 16));
}

// The pictures and the dots, which do not change while the ring moves.
const background = document.createElement("canvas");
function drawBackground() {
  const side = (background.width = background.height = $("plane").width);
  const context = background.getContext("2d");
  const [paper, ink] = [rgb("--card"), rgb("--ink")];
  context.fillStyle = `rgb(${paper})`;
  context.fillRect(0, 0, side, side);
  if ($("show-pictures").checked) {
    const cell = side / TILES, scale = cell / Math.max(width, height);
    const tile = document.createElement("canvas");
    [tile.width, tile.height] = [width, height];
    context.globalAlpha = points && $("show-points").checked ? 0.55 : 1;
    tiles.forEach((bytes, i) => {
      tile.getContext("2d").putImageData(imageData(bytes, [paper, ink]), 0, 0);
      const x = (i % TILES) * cell + (cell - width * scale) / 2;
      const y = Math.floor(i / TILES) * cell + (cell - height * scale) / 2;
      context.drawImage(tile, x, y, width * scale, height * scale);
    });
    context.globalAlpha = 1;
  }
  if (points && $("show-points").checked) {
    const radius = Math.max(1.5, side / 320);
    points.forEach((point, i) => {
      if (shownClasses.size && !shownClasses.has(labels[i])) return;
      const [x, y] = toScreen(point, side);
      context.fillStyle = colour(labels ? labels[i] : 4);
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      context.fill();
    });
  }
  drawPlane();
}

let frame = 0;
function drawPlane() {
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(() => {
    const canvas = $("plane"), context = canvas.getContext("2d");
    const side = canvas.width, unit = side / canvas.clientWidth;
    context.drawImage(background, 0, 0);
    const [x, y] = toScreen(z, side);
    for (const [lineWidth, name] of [[7, "--card"], [3.5, "--accent"]]) {
      context.lineWidth = lineWidth * unit;
      context.strokeStyle = `rgb(${rgb(name)})`;
      context.beginPath();
      context.arc(x, y, 10 * unit, 0, 7);
      context.stroke();
    }
  });
}

function fitPlane() {
  const canvas = $("plane");
  const side = Math.round(canvas.clientWidth * devicePixelRatio);
  if (side === 0 || canvas.width === side) return;
  canvas.width = canvas.height = side;
  drawBackground();
}

function pointAt(event) {
  const box = $("plane").getBoundingClientRect();
  const within = (value) => Math.min(Math.max(value, 0), 1);
  const across = within((event.clientX - box.left) / box.width), down = within((event.clientY - box.top) / box.height);
  return [
    plane.low[0] + across * (plane.high[0] - plane.low[0]),
    plane.high[1] - down * (plane.high[1] - plane.low[1]),
  ];
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

async function openPlane(arrays) {
  $("plane").hidden = $("plane-more").hidden = false;
  if (arrays.points) {
    const step = (d) => (plane.high[d] - plane.low[d]) / 65535;
    points = Array.from({ length: arrays.points.length / 2 }, (_, i) => [
      plane.low[0] + arrays.points[2 * i] * step(0),
      plane.low[1] + arrays.points[2 * i + 1] * step(1),
    ]);
    labels = arrays.labels;
    $("points-help").hidden = $("show-points-label").hidden = false;
  }
  if (labels) plane.classes.forEach(addClass);
  const canvas = $("plane");
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    choose(pointAt(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (canvas.hasPointerCapture(event.pointerId)) choose(pointAt(event));
  });
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in ARROWS)) return;
    event.preventDefault();
    const step = ((plane.high[0] - plane.low[0]) / 100) * (event.shiftKey ? 5 : 1);
    choose(z.map((value, d) => Math.min(Math.max(value + ARROWS[event.key][d] * step, plane.low[d]), plane.high[d])));
  });
  for (const id of ["show-pictures", "show-points"]) $(id).addEventListener("change", drawBackground);
  new ResizeObserver(fitPlane).observe(canvas);
  dark.addEventListener("change", () => {
    for (const button of $("classes").children) paintSwatch(button);
    drawBackground();
  });
  const at = (i, d) => plane.low[d] + ((i + 0.5) / TILES) * (plane.high[d] - plane.low[d]);
  const centres = Array.from({ length: TILES * TILES }, (_, i) => [
    at(i % TILES, 0), at(TILES - 1 - Math.floor(i / TILES), 1),
  ]);
  await ask("decodeAll", { points: centres }, ({ parts }) => {
    tiles.push(...parts);
    drawBackground();
  });
}

function paintSwatch(button) {
  button.firstChild.style.background = colour(Number(button.dataset.label));
}

function addClass(name, label) {
  const button = document.createElement("button");
  const swatch = document.createElement("span");
  swatch.className = "swatch";
  button.type = "button";
  button.dataset.label = label;
  button.setAttribute("aria-pressed", "false");
  button.append(swatch, name);
  paintSwatch(button);
  button.addEventListener("click", () => {
    if (!shownClasses.delete(label)) shownClasses.add(label);
    button.setAttribute("aria-pressed", String(shownClasses.has(label)));
    drawBackground();
  });
  $("classes").append(button);
}

// --- Pictures from a seed, and from one of them to another

let samples = [];

const makeSamples = newest(async ({ seed, count }) => {
  const made = [];
  $("save").disabled = true;
  await ask("sampleAll", { seed, count }, ({ parts, done }) => {
    made.push(...parts);
    $("samples-status").textContent = done < 1 ? `${made.length} of ${count} pictures` : "";
  });
  samples = made;
  showSheet();
  $("save").disabled = false;
  $("samples-status").textContent = `${count === 1 ? "One picture" : `${count} pictures`} of seed ${seed}.`;
  $("from").max = $("to").max = count;
  if (Number($("to").value) > count) $("to").value = count;
  if (Number($("from").value) > count) $("from").value = 1;
  morph(true);
});

function showSheet() {
  paintSheet($("sheet"), samples.map(({ means }) => means), $("draws").checked && samples.map(({ draw }) => draw));
}

const STRIP = 10; // pictures on the way, of which the first and the last are the two ends

// The point at a part of the way, from 0 to 1, on a straight line.
function onTheWay(part) {
  const ends = ["from", "to"].map((id) => samples[Math.min(Math.max(Number($(id).value), 1), samples.length) - 1].z);
  return Array.from(ends[0], (value, d) => value + part * (ends[1][d] - value));
}

const morph = newest(async () => {
  const way = Array.from({ length: STRIP }, (_, i) => onTheWay(i / (STRIP - 1)));
  const images = [];
  await ask("decodeAll", { points: way }, ({ parts }) => images.push(...parts));
  paintSheet($("strip"), images);
});

let playing = false;
function play() {
  playing = !playing;
  $("play").setAttribute("aria-pressed", String(playing));
  $("play").textContent = playing ? "Stop" : "Play";
  const start = performance.now();
  const step = (now) => {
    if (!playing) return;
    const turns = ((now - start) / 4000) % 2; // there and back in eight seconds
    goTo(turns < 1 ? turns : 2 - turns);
    if (still.matches) setTimeout(() => step(performance.now()), 1000); // less motion: a picture a second
    else requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}

function goTo(part) {
  $("way").value = part;
  choose(onTheWay(part));
}

// --- Start

function fill() {
  document.title = $("name").textContent = model.name || "A decoder of kvae";
  $("description").textContent = model.description || "";
  document.querySelector('[data-fill="numbers"]').textContent = D === 1 ? "one number" : `${D} numbers`;
  $("rounded-weights").hidden = model.weights !== "int8";
  $("facts").textContent = `Latent size ${D}, images of ${width} × ${height} pixels, weights in ${model.weights}.`;
}

function listen() {
  $("random").addEventListener("click", async () => {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
    await ask("sampleAll", { seed, count: 1 }, ({ parts }) => choose(Array.from(parts[0].z)));
  });
  $("centre").addEventListener("click", () => choose(new Array(D).fill(0)));
  $("sample-form").addEventListener("submit", (event) => {
    event.preventDefault();
    makeSamples({ seed: Number($("seed").value), count: Number($("count").value) });
  });
  $("draws").addEventListener("change", showSheet);
  $("save").addEventListener("click", () => save($("sheet"), "samples.png"));
  $("morph-form").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["from", "to"]) $(id).addEventListener("change", () => morph(true));
  $("way").addEventListener("input", () => goTo(Number($("way").value)));
  $("play").addEventListener("click", play);
}

async function start() {
  fill();
  const arrays = await ask("open", { description: model, base64: $("arrays").textContent });
  listen();
  choose(z);
  makeSamples({ seed: 0, count: 10 });
  if (plane) await openPlane(arrays);
  document.body.dataset.ready = "yes"; // for tests
}

start().catch((error) => {
  $("description").textContent = `This page could not start: ${error.message}`;
});
