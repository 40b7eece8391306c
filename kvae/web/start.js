
// --- Start

function fill() {
  document.title = $("name").textContent = model.name || "A decoder of kvae";
  $("description").textContent = model.description || "";
  document.querySelector('[data-fill="numbers"]').textContent = D === 1 ? "one number" : `${D} numbers`;
  $("sliders-help").hidden = D <= 2 || !model.kl_per_dimension;
  $("binary-help").hidden = !model.likelihood.binary;
  $("rounded-weights").hidden = model.weights !== "int8";
  const ofClasses = classes ? ` of ${classNames.length} classes` : "";
  $("facts").textContent = `Latent size ${D}, images${ofClasses} of ${width} × ${height} pixels, weights in ${model.weights}.`;
  for (const id of ["chooser", "class-help", "class-density-help", "in-turn-label", "morph-help"]) {
    $(id).hidden = !classes;
  }
  for (const [label, name] of classNames.entries()) $("class").append(new Option(name, label));
}

// Shows everything for the class that was chosen.
function showClass() {
  chosenClass = Number($("class").value);
  moveTo(z);
  if (plane) makeTiles(true);
  if (labels) showOnly(chosenClass);
  if ($("in-turn").checked) morph(true);
  else remakeSamples();
  if (plane || model.encoder) completeNewest();
}

function listen() {
  $("class").addEventListener("change", showClass);
  $("in-turn").addEventListener("change", remakeSamples);
  $("random").addEventListener("click", async () => {
    stopPlayers(); // at once, and not when the worker answers
    const seed = crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
    await ask("sampleAll", { seed, count: 1, labels: [chosenClass] }, ({ parts }) => choose(Array.from(parts[0].z)));
  });
  $("centre").addEventListener("click", () => choose(centre));
  $("sample-form").addEventListener("submit", (event) => {
    event.preventDefault();
    remakeSamples();
  });
  for (const id of ["means", "draws"]) $(id).addEventListener("change", showSheet);
  $("save").addEventListener("click", () => save($("sheet"), "samples.png"));
  $("morph-form").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["from", "to"]) $(id).addEventListener("change", () => $("morph-form").reportValidity() && morph(true));
  $("way").addEventListener("input", () => {
    stopPlayers();
    goTo(Number($("way").value));
  });
  addPlayer($("play"), "Play", goTo, () => $("morph-form").reportValidity());
}

async function start() {
  fill();
  const arrays = await ask("open", { description: model, base64: $("arrays").textContent });
  listen();
  choose(z);
  await makeSamples({ seed: 0, count: 10 });
  if (plane) await openPlane(arrays);
  if (plane || model.encoder) await openCompletion();
  document.body.dataset.ready = "yes"; // for tests
}

start().catch((error) => {
  $("description").textContent = `This page could not start: ${error.message}`;
});
