
// --- Completion: what the observed pixels of an image say about the hidden ones

const DRAWS = 4;

// E[x | observed] over weighted points; the observed pixels keep their values.
function completedMean(nodes, x, hidden) {
  const sums = new Float64Array(model.pixels);
  const mean = MEAN_OF_ETA[model.likelihood.name];
  for (const { point, weight } of nodes) {
    if (weight < 1e-7) continue;
    for (const p of hidden) sums[p] += weight * mean(point.eta[p], model.likelihood);
  }
  const image = Float32Array.from(x);
  for (const p of hidden) image[p] = sums[p];
  return image;
}

// A completion: the mean of p(x|z) at a point z that is drawn by weight, and a draw of x there.
function completionDraw(nodes, x, hidden, seed, label) {
  const total = nodes.reduce((sum, { weight }) => sum + weight, 0);
  let left = uniforms(seed, LATENT, 1)[0] * total, k = 0;
  while (k < nodes.length - 1 && left >= nodes[k].weight) left -= nodes[k++].weight;
  const { z } = nodes[k].point;
  const { parameters, means } = decode(model, z, label);
  const { draw, noise } = LIKELIHOODS[model.likelihood.name];
  const numbers = noise(seed, PIXELS, model.pixels, model.quantiles);
  const mean = Uint8Array.from(x, byteOf), drawn = mean.slice();
  for (const p of hidden) {
    mean[p] = byteOf(means[p]);
    drawn[p] = byteOf(draw(parameters[p], means[p], numbers[p], model.likelihood));
  }
  return { z, mean, drawn };
}

let newestCompletion = 0;

// Answers in parts: the progress, then what follows from the observed pixels, then log p(hidden | observed).
async function complete({ x, shown, seed, label }, tell) {
  const mine = ++newestCompletion;
  const control = { stale: () => mine !== newestCompletion, progress: (done) => tell({ done }), label };
  await pause(); // a newer question may wait already
  if (control.stale()) throw new Stale();
  const all = Array.from(shown.keys());
  const observed = all.filter((p) => shown[p]), hidden = all.filter((p) => !shown[p]);
  const infer = model.latent_dim === 2 ? posterior : sampledPosterior;
  const { nodes, ...found } = await infer(x, observed, control);
  const moment = (f) => nodes.reduce((sum, { point, weight }) => sum + weight * f(point.z), 0);
  const centre = Array.from({ length: model.latent_dim }, (_, d) => moment((z) => z[d]));
  const greatest = nodes.reduce((most, { weight }) => Math.max(most, weight), 0);
  const cells = nodes.filter(({ weight }) => weight > 1e-3 * greatest);
  tell({
    ...found, centre,
    deviations: centre.map((_, d) => Math.sqrt(Math.max(moment((z) => (z[d] - centre[d]) ** 2), 0))),
    cells: cells.map(({ point, weight }) => [...point.z, weight / greatest]),
    mean: Uint8Array.from(completedMean(nodes, x, hidden), byteOf),
    reconstruction: Uint8Array.from(completedMean(nodes, x, all), byteOf),
    draws: Array.from(seedsOf(DRAWS, seed), (each) => completionDraw(nodes, x, hidden, each, label)),
  });
  if (hidden.length === 0) return { score: null };
  const whole = await infer(x, all, control);
  return {
    score: whole.log - found.log,
    scoreError: model.latent_dim === 2 ? whole.error + found.error : Math.hypot(whole.error, found.error),
    wholeEffective: whole.effective,
  };
}
