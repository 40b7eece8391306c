
// --- The worker: it answers one question after another, and lets others in between the parts of a long answer

// Calls work(i) for i below count; after every slice, tells the parts that are new and whether to go on.
async function inSlices(count, work, tell) {
  let parts = [], first = 0, start = performance.now();
  for (let i = 0; i < count; i++) {
    parts.push(work(i));
    if (performance.now() - start > SLICE || i === count - 1) {
      tell({ first, parts, done: (i + 1) / count });
      await pause();
      parts = [];
      first = i + 1;
      start = performance.now();
    }
  }
}

const ANSWERS = {
  open({ description, base64 }) {
    model = openModel(description, base64);
    const { plane } = description;
    const array = (facts) => facts && arrayOf(model.quantiles.buffer, facts);
    return plane && { points: array(plane.points), labels: array(plane.labels) };
  },

  complete: (values, tell) => complete(values, tell).catch((error) => {
    if (!(error instanceof Stale)) throw error;
    return null;
  }),

  decode: ({ z, label }) => Uint8Array.from(decode(model, z, label).means, byteOf),

  decodeAll: ({ points, label }, tell) =>
    inSlices(points.length, (i) => Uint8Array.from(decode(model, points[i], label).means, byteOf), tell),

  // The classes of the pictures are those in `labels`, in turn.
  sampleAll({ seed, count, labels = [undefined] }, tell) {
    const seeds = seedsOf(count, seed);
    return inSlices(count, (i) => sample(model, seeds[i], labels[i % labels.length]), tell);
  },
};

onmessage = async ({ data: { id, question, values } }) => {
  try {
    const answer = await ANSWERS[question](values, (part) => postMessage({ id, part }));
    postMessage({ id, answer });
  } catch (error) {
    postMessage({ id, error: String(error.message || error) });
  }
};
