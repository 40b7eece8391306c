
// --- The plane

const LIGHT = ["#332288", "#e6550d", "#117733", "#aa4499", "#3b7bb8", "#000000", "#4a8a22", "#882255", "#c4505f", "#b8327a"];
const DARK = ["#9d90f0", "#ff9a5c", "#4fc97f", "#e08ad6", "#86bdf0", "#ffffff", "#a5dc6f", "#e5709f", "#ff9aa8", "#ff7fc0"];
const colour = (label) => (dark.matches ? DARK : LIGHT)[label % LIGHT.length];
const TILES = 15; // pictures per side of the plane; more where a picture is narrower than long, so that they fill it
const across = Math.min(2 * TILES, Math.round(TILES * Math.max(1, height / width)));
const down = Math.min(2 * TILES, Math.round(TILES * Math.max(1, width / height)));
const shownClasses = new Set();
const tiles = [];
let points, labels;

const toScreen = ([a, b], side) => [
  ((a - plane.low[0]) / (plane.high[0] - plane.low[0])) * side,
  ((plane.high[1] - b) / (plane.high[1] - plane.low[1])) * side,
];

function rgb(name) {
  const value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => parseInt(value.slice(at, at + 2), 16));
}

// The pictures of the plane, in the colours of the page.
function paintTiles(context, side, opacity) {
  const [cellWidth, cellHeight] = [side / across, side / down];
  const scale = Math.min(cellWidth / width, cellHeight / height);
  const colours = [rgb("--card"), rgb("--ink")];
  const tile = document.createElement("canvas");
  [tile.width, tile.height] = [width, height];
  context.globalAlpha = opacity;
  tiles.forEach((bytes, i) => {
    tile.getContext("2d").putImageData(imageData(bytes, colours), 0, 0);
    const x = (i % across) * cellWidth + (cellWidth - width * scale) / 2;
    const y = Math.floor(i / across) * cellHeight + (cellHeight - height * scale) / 2;
    context.drawImage(tile, x, y, width * scale, height * scale);
  });
  context.globalAlpha = 1;
}

// The pictures and the dots, which do not change while the ring moves.
const background = document.createElement("canvas");
function drawBackground() {
  const side = (background.width = background.height = $("plane").width);
  const context = background.getContext("2d");
  context.fillStyle = `rgb(${rgb("--card")})`;
  context.fillRect(0, 0, side, side);
  const dots = points && $("show-points").checked, coloured = channels === 3;
  // Grey pictures are faint behind the dots. Those in colour would have other colours, so there the dots have a rim.
  if ($("show-pictures").checked) paintTiles(context, side, dots && !coloured ? 0.55 : 1);
  if (dots) {
    const radius = Math.max(1.5, side / 320) * (points.length < 1000 ? 1.5 : 1);
    context.lineWidth = radius;
    context.strokeStyle = `rgb(${rgb("--card")})`;
    points.forEach((point, i) => {
      if (shownClasses.size && !shownClasses.has(labels[i])) return;
      const [x, y] = toScreen(point, side);
      context.fillStyle = colour(labels ? labels[i] : 4);
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      if (coloured) context.stroke();
      context.fill();
    });
  }
  drawPlane();
  drawPosterior();
}

let frame = 0;
function drawPlane() {
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(() => {
    const canvas = $("plane"), context = canvas.getContext("2d");
    const side = canvas.width, unit = side / canvas.clientWidth;
    context.drawImage(background, 0, 0);
    drawPath(context, side, unit);
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

function movePointer(event) {
  const point = pointAt(event);
  if ($("path-mode").checked) addToPath(point);
  choose(point);
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
    $("class-points-help").hidden = !labels || !classes;
  }
  if (labels) plane.classes.forEach(addClass);
  if (labels && classes) showOnly(chosenClass);
  $("where").textContent = describe(z); // with the test pictures that are near
  const canvas = $("plane");
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    if ($("path-mode").checked) path = [];
    movePointer(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (canvas.hasPointerCapture(event.pointerId)) movePointer(event);
  });
  listenToPath();
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && $("path-mode").checked) addToPath(z);
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
  await makeTiles(true);
}

// The pictures of the plane, for the chosen class.
const makeTiles = newest(async () => {
  const at = (part, d) => plane.low[d] + part * (plane.high[d] - plane.low[d]);
  const centres = Array.from({ length: across * down }, (_, i) => [
    at(((i % across) + 0.5) / across, 0), at(1 - (Math.floor(i / across) + 0.5) / down, 1),
  ]);
  await ask("decodeAll", { points: centres, label: chosenClass }, ({ first, parts }) => {
    parts.forEach((bytes, i) => (tiles[first + i] = bytes));
    drawBackground();
  });
});

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
    showDots();
  });
  $("classes").append(button);
}

function showDots() {
  for (const button of $("classes").children) {
    button.setAttribute("aria-pressed", String(shownClasses.has(Number(button.dataset.label))));
  }
  drawBackground();
}

// Shows the dots of one class only, and its button among those of many classes.
function showOnly(label) {
  shownClasses.clear();
  shownClasses.add(label);
  showDots();
  const box = $("classes");
  box.scrollTop = box.children[label].offsetTop - box.offsetTop - box.clientHeight / 2;
}

// --- A path in the plane, which the ring follows

let path = [];

function addToPath(point) {
  stopPlayers(); // which may be on the path as it was
  path.push(point);
  $("path-play").disabled = path.length < 2;
  $("path-clear").disabled = false;
  drawPlane();
}

function drawPath(context, side, unit) {
  if (path.length === 0) return;
  context.beginPath();
  path.forEach((point) => context.lineTo(...toScreen(point, side)));
  context.lineJoin = context.lineCap = "round";
  for (const [lineWidth, name] of [[6, "--card"], [2.5, "--accent"]]) {
    context.lineWidth = lineWidth * unit;
    context.strokeStyle = `rgb(${rgb(name)})`;
    context.stroke();
  }
}

// The point of the path at a part of its length, from 0 to 1.
function onThePath(part) {
  const lengths = path.slice(1).map((point, i) => Math.hypot(point[0] - path[i][0], point[1] - path[i][1]));
  let left = part * lengths.reduce((sum, length) => sum + length, 0);
  let i = 0;
  while (i < lengths.length - 1 && left > lengths[i]) left -= lengths[i++];
  const t = lengths[i] > 0 ? left / lengths[i] : 0;
  return path[i].map((value, d) => value + t * (path[i + 1][d] - value));
}

function listenToPath() {
  $("path-mode").addEventListener("change", () => ($("path-help").hidden = !$("path-mode").checked));
  addPlayer($("path-play"), "Play the path", (part) => moveTo(onThePath(part)));
  $("path-clear").addEventListener("click", () => {
    stopPlayers();
    path = [];
    $("path-play").disabled = $("path-clear").disabled = true;
    drawPlane();
  });
}

// --- What plays: one at a time

const players = [];

function stopPlayers() {
  for (const { stop } of players) stop();
}

// Lets a button call go(part) there and back, from 0 to 1 in four seconds, until it is pressed again or other numbers
// are chosen. It begins only if ready().
function addPlayer(button, name, go, ready = () => true) {
  let playing; // a number of its own for each time that it plays
  const show = (value) => {
    playing = value;
    button.setAttribute("aria-pressed", String(Boolean(playing)));
    button.textContent = playing ? "Stop" : name;
  };
  const play = () => {
    const start = performance.now();
    const step = () => {
      if (playing !== start) return;
      const turns = ((performance.now() - start) / 4000) % 2;
      go(turns < 1 ? turns : 2 - turns);
      if (still.matches) setTimeout(step, 1000); // less motion: a picture a second
      else requestAnimationFrame(step);
    };
    show(start);
    requestAnimationFrame(step);
  };
  players.push({ stop: () => show(undefined) });
  button.addEventListener("click", () => {
    const wasPlaying = playing;
    stopPlayers();
    if (!wasPlaying && ready()) play();
  });
}
