// What one sees: the latent plane, the sliders, the pictures of a seed. A worker computes; this file shows.
// All names and texts of a model enter the page as text (textContent), never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const model = JSON.parse($("model").textContent);
const [height, width, channels = 1] = model.image_shape;
const D = model.latent_dim;
const { plane } = model;
const { classes } = model; // of a conditional model
const classNames = classes ? classes.names || Array.from({ length: classes.count }, (_, i) => String(i)) : [];
let chosenClass = classes ? 0 : undefined; // its number

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
    try {
      while (next !== undefined) {
        const current = next;
        next = undefined;
        await action(current);
      }
    } finally {
      busy = false; // one that fails must not stop all that follow
    }
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

// How a sheet arranges images: the same as `kvae.runtime.sheet`, where docstrings explain it.
function layoutOf(count, height, width, given) {
  const columns = given ?? (count <= 10 ? Math.min(count, 5) : Math.ceil(Math.sqrt(count)));
  const rows = Math.ceil(count / columns);
  const longest = Math.max(rows * (height + 1), columns * (width + 1)) - 1;
  const enlargement = Math.min(Math.floor(128 / Math.max(height, width)), Math.floor(1200 / longest));
  return { columns, rows, enlargement: Math.max(1, enlargement) };
}

// Images in rows on a white canvas, one white pixel apart and then enlarged: the picture of `kvae sample`.
function paintSheet(canvas, images, given) {
  const { columns, rows, enlargement } = layoutOf(images.length, height, width, given);
  const small = document.createElement("canvas");
  [small.width, small.height] = [columns * (width + 1) - 1, rows * (height + 1) - 1];
  const context = small.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, small.width, small.height);
  images.forEach((bytes, i) => {
    context.putImageData(imageData(bytes), (i % columns) * (width + 1), Math.floor(i / columns) * (height + 1));
  });
  [canvas.width, canvas.height] = [small.width * enlargement, small.height * enlargement];
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

const centre = model.prior ? model.prior.centre : new Array(D).fill(0);
let z = centre;
const reach = plane ? Math.max(...plane.high, ...plane.low.map((value) => -value)) : model.prior ? model.prior.extent : 3.5;
const subscript = (d) => `z${String(d + 1).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit])}`;
const rounded = (value) => value.toFixed(2).replace("-", "−");

const sliders = model.order.map((d) => {
  const label = document.createElement("label");
  const name = document.createElement("span");
  const input = document.createElement("input");
  const output = document.createElement("output");
  output.setAttribute("aria-live", "off"); // the sentence about the place is told instead
  name.textContent = subscript(d);
  if (model.kl_per_dimension) label.title = `${model.kl_per_dimension[d].toFixed(2)} nats of information per picture`;
  Object.assign(input, { type: "range", min: -reach, max: reach, step: 0.01, id: `slider-${d}` });
  input.addEventListener("input", () => choose(z.map((value, i) => (i === d ? Number(input.value) : value))));
  label.append(name, input, output);
  $("sliders").append(label);
  return { d, input, output };
});

const decodeNewest = newest(async (point) => paint($("image"), await ask("decode", { z: point, label: chosenClass })));

// Takes numbers that the reader chose: nothing that plays may take others after it.
function choose(point) {
  stopPlayers();
  moveTo(point);
}

let toldLater;
function moveTo(point) {
  z = point;
  for (const { d, input, output } of sliders) {
    input.value = z[d];
    output.textContent = rounded(z[d]);
  }
  decodeNewest(z);
  if (plane) drawPlane();
  $("where").textContent = describe(z);
  clearTimeout(toldLater); // a screen reader need not hear every step of a drag
  toldLater = setTimeout(() => ($("where-told").textContent = describe(z)), 250);
}

function describe(point) {
  const numbers = D <= 3 ? `At ${point.map((value, d) => `${subscript(d)} = ${rounded(value)}`).join(", ")}` : `At the ${D} numbers of the sliders`;
  return `${numbers}${classes ? `, of class ${classNames[chosenClass]}` : ""}${nearby(point)}.`;
}

// The class of most of the encoded test images around a point, in words; nothing if the class is chosen.
function nearby([a, b]) {
  if (!points || !labels || classes) return "";
  const radius = (plane.high[0] - plane.low[0]) / 30;
  const counts = new Array(plane.classes.length).fill(0);
  points.forEach(([x, y], i) => {
    if (Math.hypot(x - a, y - b) < radius) counts[labels[i]]++;
  });
  const most = Math.max(...counts);
  return most === 0 ? ", where no test picture is near" : `, where most test pictures are of class ${plane.classes[counts.indexOf(most)]}`;
}
