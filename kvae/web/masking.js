
// --- A picture with hidden pixels, and what fits it

const PAD = Math.max(1, Math.round(280 / Math.max(width, height))); // pixels of the pad per pixel of the image
const ink = document.createElement("canvas"); // what was drawn, without the pen
const hiddenPixels = new Uint8Array(width * height);
let image = new Float32Array(width * height * channels); // what the network is shown, values in [0, 1]
const pen = { x: 0.5, y: 0.5, down: false, used: false }, eraser = { x: 0, y: 0, down: false, used: false };

const inkContext = () => ink.getContext("2d", { willReadFrequently: true });

function clearInk() {
  [ink.width, ink.height] = [width * PAD, height * PAD];
  inkContext().fillRect(0, 0, ink.width, ink.height);
}

// A stroke of the pen from one place to another, both in pixels of the pad.
function stroke([x0, y0], [x1, y1]) {
  const context = inkContext();
  const erase = document.querySelector("[name=tool]:checked").value === "erase";
  if (taken && !erase) emptyPad(); // who draws begins a picture of their own
  taken = false;
  context.lineWidth = PAD * Math.max(1.5, Math.max(width, height) * (erase ? 0.12 : 0.075)); // at least a pixel and a half
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = erase ? "#000" : channels === 3 ? $("colour").value : "#fff";
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1 + 0.01, y1);
  context.stroke();
}

// Light on dark, from 0 to 1, for every pixel of a canvas; [height, width, channels].
function valuesOf(canvas) {
  const { data } = canvas.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, canvas.width, canvas.height);
  const values = new Float32Array((data.length / 4) * channels);
  for (let p = 0; p < data.length / 4; p++) {
    const [r, g, b] = data.subarray(4 * p, 4 * p + 3);
    if (channels === 3) values.set([r / 255, g / 255, b / 255], 3 * p);
    else values[p] = (0.299 * r + 0.587 * g + 0.114 * b) / 255;
  }
  return $("invert").checked ? values.map((value) => 1 - value) : values;
}

const FINER = 4;

// Means over FINER x FINER values: [FINER * height, FINER * width, channels] becomes [height, width, channels].
function averaged(values) {
  const means = new Float32Array(height * width * channels);
  values.forEach((value, i) => {
    const channel = i % channels, p = (i - channel) / channels;
    const column = Math.floor((p % (FINER * width)) / FINER), row = Math.floor(p / (FINER * width) / FINER);
    means[(row * width + column) * channels + channel] += value / FINER ** 2;
  });
  return means;
}

// The box around what is light, and its centre of mass, in pixels of the canvas; null if all is about the same. Light is
// what is above the middle of the darkest and the lightest value, because the paper of a photo is not black if inverted.
function extentOf(values, columns) {
  let [left, top, right, bottom] = [Infinity, Infinity, -1, -1], mass = 0, x = 0, y = 0;
  let [least, greatest] = [1, 0];
  for (const value of values) [least, greatest] = [Math.min(least, value), Math.max(greatest, value)];
  if (greatest - least < 0.2) return null;
  values.forEach((value, p) => {
    if (value < (least + greatest) / 2) return;
    const [c, r] = [p % columns, Math.floor(p / columns)];
    [left, top, right, bottom] = [Math.min(left, c), Math.min(top, r), Math.max(right, c), Math.max(bottom, r)];
    mass += value;
    x += value * (c + 0.5);
    y += value * (r + 0.5);
  });
  return { longest: Math.max(right - left, bottom - top) + 1, x: x / mass, y: y / mass };
}

// What was drawn, as the network is shown it: as MNIST, 20 pixels long and with its centre of mass in the middle; and
// black and white where the network knows nothing else.
function prepare() {
  const small = document.createElement("canvas"); // FINER times as large, because a canvas shrinks pictures roughly
  [small.width, small.height] = [FINER * width, FINER * height];
  const context = small.getContext("2d", { willReadFrequently: true });
  context.scale(FINER, FINER);
  context.fillStyle = $("invert").checked ? "#fff" : "#000";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  const extent = $("fit").checked ? extentOf(valuesOf(ink), ink.width) : null;
  if (extent) {
    const scale = (20 / 28) * (Math.max(width, height) / extent.longest);
    context.drawImage(ink, width / 2 - extent.x * scale, height / 2 - extent.y * scale, ink.width * scale, ink.height * scale);
  } else {
    context.drawImage(ink, 0, 0, width, height);
  }
  image = averaged(valuesOf(small));
  if (model.likelihood.binary) image = image.map((value) => (value >= 0.5 ? 1 : 0));
  showImage();
}

function showImage() {
  paintPad();
  paintSeen();
  completeNewest();
}

// A ring where the keys have moved a pen, while its canvas has the focus.
function paintPen(canvas, { x, y, down, used }, size) {
  if (!used || document.activeElement !== canvas) return;
  const context = canvas.getContext("2d");
  context.lineWidth = Math.max(1, size / 8);
  context.strokeStyle = down ? "#ff9a3c" : "#4aa3ff";
  context.strokeRect(x - size / 2, y - size / 2, size, size);
}

function paintPad() {
  const canvas = $("pad");
  [canvas.width, canvas.height] = [ink.width, ink.height];
  canvas.getContext("2d").drawImage(ink, 0, 0);
  paintPen(canvas, { ...pen, x: pen.x * ink.width, y: pen.y * ink.height }, 2 * PAD);
}

const ZOOM = 8; // pixels of the canvas per pixel, for the pattern of hidden ones

function paintSeen() {
  const canvas = $("seen"), small = document.createElement("canvas");
  paint(small, image.map((value) => value * 255));
  [canvas.width, canvas.height] = [width * ZOOM, height * ZOOM];
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  context.fillStyle = "#4477aa";
  context.strokeStyle = "#a8c8ea";
  context.lineWidth = 1;
  hiddenPixels.forEach((isHidden, p) => {
    if (!isHidden) return;
    const [x, y] = [(p % width) * ZOOM, Math.floor(p / width) * ZOOM];
    context.fillRect(x, y, ZOOM, ZOOM);
    context.beginPath();
    context.moveTo(x, y + ZOOM);
    context.lineTo(x + ZOOM, y);
    context.stroke();
  });
  paintPen(canvas, { ...eraser, x: (eraser.x + 0.5) * ZOOM, y: (eraser.y + 0.5) * ZOOM }, ZOOM);
}

// Hides or shows the pixels around one, those of a brush.
function mask(column, row) {
  const value = document.querySelector("[name=mask]:checked").value === "hide" ? 1 : 0;
  const reach = Math.max(0, Math.round(Math.max(width, height) / 20) - 1);
  for (let r = Math.max(0, row - reach); r <= Math.min(height - 1, row + reach); r++) {
    for (let c = Math.max(0, column - reach); c <= Math.min(width - 1, column + reach); c++) hiddenPixels[r * width + c] = value;
  }
  showImage();
}

const HALVES = {
  nothing: () => false,
  top: (r) => r < height / 2,
  bottom: (r) => r >= height / 2,
  left: (r, c) => c < width / 2,
  right: (r, c) => c >= width / 2,
};

function hide(part) {
  hiddenPixels.forEach((_, p) => (hiddenPixels[p] = HALVES[part](Math.floor(p / width), p % width) ? 1 : 0));
  showImage();
}

const nats = (value) => `${value.toFixed(2).replace("-", "−")} nats`;
let found; // the last answer of the worker
let taken = false; // whether the pad shows a picture of the network that nobody has changed

let newestQuestion = 0;

// Asks what fits the picture as it is now; the worker leaves the question before unanswered.
async function completeNewest() {
  const mine = ++newestQuestion;
  const shown = Uint8Array.from(image, (_, p) => 1 - hiddenPixels[Math.floor(p / channels)]);
  let told = "";
  const status = $("complete-status"), progress = $("complete-progress"), section = $("complete-section");
  section.setAttribute("aria-busy", "true"); // what is shown belongs to the picture before
  delete document.body.dataset.completed;
  const last = await ask("complete", { x: image, shown, seed: 0, label: chosenClass }, (part) => {
    if (mine !== newestQuestion) return;
    if ("done" in part) {
      progress.hidden = false;
      progress.value = part.done;
      if (!told && status.textContent !== "Computing …") status.textContent = "Computing …"; // is said once
      return;
    }
    section.setAttribute("aria-busy", "false");
    found = part;
    paint($("completed"), part.mean);
    const images = [...part.draws.map(({ mean }) => mean), ...part.draws.map(({ drawn }) => drawn)];
    paintSheet($("completions"), images, part.draws.length);
    if (!plane) paint($("posterior"), part.reconstruction);
    told = describeFound(part);
    drawPosterior();
    status.textContent = told;
  });
  if (!last || mine !== newestQuestion) return;
  progress.hidden = true;
  const score = last.score === null ? "" : ` log p(hidden | visible${classes ? ", class" : ""}) = ${withError(last.score, last.scoreError)}.`;
  status.textContent = `${told}${score}`;
  document.body.dataset.completed = JSON.stringify({ log: found.log, ...last }); // for tests
}

const EXACT = 0.01; // nats: an error of quadrature that is not told

// A value in nats with its error: the standard error of importance sampling, or that of the quadrature.
function withError(value, error) {
  if (plane && error <= EXACT) return nats(value);
  return `${nats(value)} (± ${Number.isFinite(error) ? error.toFixed(2) : "unknown"})`;
}

const FEW = 30; // effective samples below which nothing is certain

function describeFound({ log, error, centre, deviations, effective, count }) {
  const visible = `log p(visible${classes ? " | class" : ""}) = ${withError(log, error)}.`;
  if (plane) {
    const places = centre.map((value, d) => `${subscript(d)} = ${rounded(value)} ± ${deviations[d].toFixed(2)}`);
    $("posterior-where").textContent = `${places.join(", ")}${nearby(centre)}.`;
    return visible;
  }
  const warning = effective < FEW ? " These are few: do not trust the numbers and the pictures." : "";
  $("posterior-where").textContent =
    `${Math.round(effective)} effective samples, of ${count} places that were tried.${warning}`;
  return visible;
}

// The posterior as a heat map over the pictures of the plane.
function drawPosterior() {
  if (!plane || !found) return;
  const canvas = $("posterior");
  const side = (canvas.width = canvas.height = 2 * 288), context = canvas.getContext("2d");
  const accent = rgb("--accent");
  context.fillStyle = `rgb(${rgb("--card")})`;
  context.fillRect(0, 0, side, side);
  paintTiles(context, side, 0.4);
  const cell = (found.width / (plane.high[0] - plane.low[0])) * side;
  for (const [a, b, density] of found.cells) {
    const [x, y] = toScreen([a, b], side);
    context.fillStyle = `rgba(${accent}, ${0.08 + 0.92 * density})`;
    context.fillRect(x - cell / 2, y - cell / 2, cell + 0.5, cell + 0.5);
  }
  const [x, y] = toScreen(found.centre, side);
  const radius = 14 + 3 * (Math.max(...found.deviations) / (plane.high[0] - plane.low[0])) * side;
  if (radius > side / 6) return; // a ring helps to find a small spot only
  context.lineWidth = 3;
  context.strokeStyle = `rgb(${accent})`;
  context.beginPath();
  context.arc(x, y, radius, 0, 7);
  context.stroke();
}

// Listens to a canvas on which one draws: at(x, y, before) by pointer, in parts of its width and height.
function drawn(canvas, at) {
  let before = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    at(place(event), (before = place(event)));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    for (const each of event.getCoalescedEvents?.() ?? [event]) at(place(each), before), (before = place(each));
  });
}

// A picture of the network at the numbers of one of the samples, of the chosen class.
async function takeSample() {
  const { z } = samples[Math.floor(Math.random() * samples.length)];
  const means = await ask("decode", { z, label: chosenClass });
  const context = inkContext(), small = document.createElement("canvas");
  paint(small, means);
  emptyPad();
  $("fit").checked = false;
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, ink.width, ink.height);
  taken = true;
  prepare();
}

// An empty pad, with the settings for a drawing, and without the name of a file.
function emptyPad() {
  clearInk();
  taken = false;
  $("fit").checked = model.digits;
  $("invert").checked = false;
  $("file").value = $("file-status").textContent = "";
}

async function loadPicture(file) {
  if (!file) return;
  $("file-status").textContent = "";
  try {
    const bitmap = await createImageBitmap(file);
    const scale = Math.min(ink.width / bitmap.width, ink.height / bitmap.height);
    const [w, h] = [bitmap.width * scale, bitmap.height * scale];
    clearInk();
    if (taken) $("fit").checked = model.digits;
    taken = false;
    inkContext().drawImage(bitmap, 0, 0, 1, 1, 0, 0, ink.width, ink.height); // margins in the colour of its corner
    inkContext().drawImage(bitmap, (ink.width - w) / 2, (ink.height - h) / 2, w, h);
    prepare();
  } catch {
    $("file-status").textContent = `The browser cannot read ${file.name} as a picture.`;
  }
}

async function openCompletion() {
  $("complete-section").hidden = false;
  $("fit-label").hidden = !model.digits;
  $("fit").checked = model.digits;
  $("colour-label").hidden = channels !== 3;
  $("how-computed").textContent = plane
    ? "The page integrates over the whole latent plane, on a grid that is refined where the probability is."
    : "The page estimates them by importance sampling: it tries places that the encoder proposes, and weights them. " +
      "The effective samples are the number of equally weighted places that would be as precise.";
  $("squared-error-help").hidden = model.likelihood.name !== "squared_error";
  if (!plane) {
    $("posterior-title").textContent = "Reconstructed";
    $("posterior-help").textContent = "The mean picture of the network at the places that fit.";
    $("posterior").classList.remove("smooth");
    $("posterior").setAttribute("aria-label", "The reconstruction");
  }
  $("go").addEventListener("click", () => found && choose(found.centre));
  clearInk();
  const scaled = ([x, y]) => [x * ink.width, y * ink.height];
  drawn($("pad"), (to, from) => {
    stroke(scaled(from), scaled(to));
    prepare();
  });
  drawn($("seen"), ([x, y]) => mask(Math.floor(x * width), Math.floor(y * height)));
  $("pad").addEventListener("keydown", (event) => {
    const move = ARROWS[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    const from = scaled([pen.x, pen.y]);
    pen.used = true;
    if (move) {
      pen.x = Math.min(Math.max(pen.x + (2 * move[0]) / width, 0), 1);
      pen.y = Math.min(Math.max(pen.y - (2 * move[1]) / height, 0), 1);
    } else pen.down = !pen.down;
    if (!pen.down) return paintPad();
    stroke(from, scaled([pen.x, pen.y]));
    prepare();
  });
  $("seen").addEventListener("keydown", (event) => {
    const move = ARROWS[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    eraser.used = true;
    if (move) {
      eraser.x = Math.min(Math.max(eraser.x + move[0], 0), width - 1);
      eraser.y = Math.min(Math.max(eraser.y - move[1], 0), height - 1);
    } else eraser.down = !eraser.down;
    if (eraser.down) mask(eraser.x, eraser.y);
    else paintSeen();
  });
  for (const id of ["pad", "seen"]) $(id).addEventListener("blur", () => (paintPad(), paintSeen()));
  $("clear").addEventListener("click", () => {
    emptyPad();
    prepare();
  });
  $("take").addEventListener("click", takeSample);
  $("file").addEventListener("click", (event) => (event.target.value = "")); // so that the same file can be chosen again
  $("file").addEventListener("change", (event) => loadPicture(event.target.files[0]));
  for (const id of ["fit", "invert"]) $(id).addEventListener("change", prepare);
  for (const button of document.querySelectorAll("[data-hide]")) {
    button.addEventListener("click", () => hide(button.dataset.hide));
  }
  await takeSample();
}
