
// --- Pictures from a seed, and from one of them to another

let samples = [];

const makeSamples = newest(async ({ seed, count }) => {
  const made = [];
  const inTurn = classes && $("in-turn").checked;
  const labels = inTurn ? Array.from(classNames.keys()) : [chosenClass];
  $("save").disabled = true;
  await ask("sampleAll", { seed, count, labels }, ({ parts, done }) => {
    made.push(...parts);
    $("samples-status").textContent = done < 1 ? `${made.length} of ${count} pictures` : "";
  });
  samples = made;
  showSheet();
  $("save").disabled = false;
  const ofClass = !classes ? "" : inTurn ? ", of all classes in turn" : `, of class ${classNames[labels[0]]}`;
  $("samples-status").textContent = `${count === 1 ? "One picture" : `${count} pictures`} of seed ${seed}${ofClass}.`;
  $("from").max = $("to").max = count;
  if (Number($("to").value) > count) $("to").value = count;
  if (Number($("from").value) > count) $("from").value = 1;
  morph(true);
});

function remakeSamples() {
  if ($("sample-form").reportValidity()) makeSamples({ seed: Number($("seed").value), count: Number($("count").value) });
}

function showSheet() {
  paintSheet($("sheet"), samples.map(({ means, draw }) => ($("draws").checked ? draw : means)));
}

const STRIP = 10; // pictures on the way, of which the first and the last are the two ends

// The point at a part of the way, from 0 to 1, on a straight line.
function onTheWay(part) {
  const ends = ["from", "to"].map((id) => {
    const number = Math.round(Number($(id).value)); // whatever was typed
    return samples[Math.min(Math.max(number, 1), samples.length) - 1].z;
  });
  return Array.from(ends[0], (value, d) => value + part * (ends[1][d] - value));
}

const morph = newest(async () => {
  if (samples.length === 0) return; // makeSamples calls it again
  const way = Array.from({ length: STRIP }, (_, i) => onTheWay(i / (STRIP - 1)));
  const images = [];
  await ask("decodeAll", { points: way, label: chosenClass }, ({ parts }) => images.push(...parts));
  paintSheet($("strip"), images, STRIP);
});

function goTo(part) {
  $("way").value = part;
  if (samples.length > 0) moveTo(onTheWay(part));
}
