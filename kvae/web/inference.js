
// --- The posterior in the latent plane: exact up to the width of a grid, which is refined where the mass is
//
// For every likelihood of kvae, log p(x|z) of a pixel is x eta(z) + c(z) + h(x). So a point of the plane is decoded
// once; for another image or another mask, only a sum over its observed pixels is new.

let model; // the one of the page, when it is open
const SLICE = 25; // milliseconds of work between two looks at the inbox
const pause = () => new Promise((resume) => setTimeout(resume));

const SIGMOID = ACTIVATIONS.sigmoid;
const NATURAL = {
  bernoulli: (l) => [l, -softplus(l)],
  continuous_bernoulli: (l) => [l, logNormalizer(l) - softplus(l)],
  gaussian(l, { variance }) {
    const mean = SIGMOID(l);
    return [mean / variance, -(mean ** 2) / (2 * variance) - 0.5 * Math.log(2 * Math.PI * variance)];
  },
  squared_error(l) {
    const mean = SIGMOID(l);
    return [mean, -(mean ** 2) / 2];
  },
};
const OF_X = { // h(x)
  gaussian: (x, { variance }) => -(x ** 2) / (2 * variance),
  squared_error: (x) => -(x ** 2) / 2,
};
const MEAN_OF_ETA = { // E[x|z]
  bernoulli: SIGMOID,
  continuous_bernoulli: LIKELIHOODS.continuous_bernoulli.mean,
  gaussian: (eta, { variance }) => eta * variance,
  squared_error: (eta) => eta,
};

// The logarithm of the constant of the continuous Bernoulli, l / tanh(l / 2).
function logNormalizer(l) {
  return Math.abs(l) < 0.01 ? Math.log(2) + l ** 2 / 12 : Math.log(l / Math.tanh(l / 2));
}

// A latent point with what the likelihood of a class needs of it.
function openPoint(z, label) {
  const { parameters } = decode(model, z, label);
  const eta = new Float32Array(model.pixels), c = new Float32Array(model.pixels);
  const natural = NATURAL[model.likelihood.name];
  for (let p = 0; p < model.pixels; p++) [eta[p], c[p]] = natural(parameters[p], model.likelihood);
  return { z, eta, c, logOfPrior: logPrior(model, z) };
}

// log p(x, z) for the pixels whose indices are given, without h(x), which all points share.
function logJoint({ eta, c, logOfPrior }, x, pixels) {
  let sum = logOfPrior;
  for (let i = 0; i < pixels.length; i++) {
    const p = pixels[i];
    sum += x[p] * eta[p] + c[p];
  }
  return sum;
}

function sharedTerm(x, pixels) {
  const term = OF_X[model.likelihood.name];
  return term ? pixels.reduce((sum, p) => sum + term(x[p], model.likelihood), 0) : 0;
}

const FINEST = 7; // halvings of the distance between its points, at most
const EDGE = 20; // nats below its maximum that the integrand must be at the edge, or the grid grows
const ACTIVE = 18; // nats below its maximum down to which the integrand is looked at more closely
const AGREED = 4e-3; // nats: a grid agrees with every second point of it; its error is then far smaller
const MEMORY = 2 ** 27; // bytes for points that are kept

const kept = new Map(); // points by their place on the finest grid, and by class
const keyOf = (i, j) => (i + 2 ** 15) * 2 ** 16 + j + 2 ** 15;

// Points per side of the first grid, so that it fits into half of the memory. The grid reaches
// as far from its middle as nearly all of the mass of the prior: for the standard normal, all but 5e-12 of it.
const firstSide = () => (65 ** 2 * 8 * model.pixels <= MEMORY / 2 ? 65 : 33);

// The integral of p(x, z) over z for some pixels, and the points with their weights, which sum to 1; given a class, if
// the model has any. `error` is what `integral` calls so, above AGREED if the finest grid was not fine enough.
async function posterior(x, pixels, { stale, progress, label = 0 }) {
  const { middle, reach } = model.prior;
  const unit = (2 * reach) / (firstSide() - 1) / 2 ** FINEST;
  const shared = sharedTerm(x, pixels);
  if (kept.size * 8 * model.pixels > MEMORY) kept.clear();
  let step = 2 ** FINEST, half = ((firstSide() - 1) / 2) * step;
  const values = new Map(); // log p(x, z) by place
  let greatest = -Infinity, start = performance.now();

  // Evaluates the places that are new, in slices.
  async function evaluate(places) {
    for (let n = 0; n < places.length; n++) {
      const [i, j] = places[n], key = keyOf(i, j);
      if (values.has(key)) continue;
      const place = label * 2 ** 32 + key;
      let point = kept.get(place);
      if (!point) kept.set(place, (point = openPoint([middle[0] + i * unit, middle[1] + j * unit], label)));
      const value = logJoint(point, x, pixels);
      values.set(key, { i, j, point, value });
      greatest = Math.max(greatest, value);
      if (performance.now() - start > SLICE) {
        progress((n + 1) / places.length);
        await pause();
        if (stale()) throw new Stale();
        start = performance.now();
      }
    }
  }

  const square = () => {
    const places = [];
    for (let i = -half; i <= half; i += step) for (let j = -half; j <= half; j += step) places.push([i, j]);
    return places;
  };
  // The logarithm of the integral on a grid, and its largest difference from the values on every second point, which are
  // those of four grids: a single one agrees by chance sometimes.
  function integral(nodes) {
    const sums = [0, 0, 0, 0];
    for (const { i, j, value } of nodes) sums[2 * ((i / step) & 1) + ((j / step) & 1)] += Math.exp(value - greatest);
    const sum = sums.reduce((total, each) => total + each);
    return {
      log: shared + greatest + Math.log(sum) + 2 * Math.log(step * unit),
      error: Math.max(...sums.map((each) => Math.abs(Math.log((4 * each) / sum)))),
    };
  }
  const atEdge = ({ i, j, value }) => Math.max(Math.abs(i), Math.abs(j)) === half && value > greatest - EDGE;

  await evaluate(square());
  while ([...values.values()].some(atEdge) && half * unit < 4 * reach) {
    half *= 2;
    await evaluate(square());
  }
  let nodes = [...values.values()];
  let { log, error } = integral(nodes);
  while (error > AGREED && step > 1) {
    const next = step / 2, places = new Map();
    for (const { i, j, value } of nodes) {
      if (value < greatest - ACTIVE) continue;
      for (const di of [-next, 0, next]) for (const dj of [-next, 0, next]) places.set(keyOf(i + di, j + dj), [i + di, j + dj]);
    }
    if ((kept.size + places.size) * 8 * model.pixels > 2 * MEMORY) break; // the error says what this costs
    await evaluate([...places.values()]);
    step = next;
    nodes = [...places.keys()].map((key) => values.get(key));
    ({ log, error } = integral(nodes));
  }
  const total = log - shared - 2 * Math.log(step * unit);
  return {
    log, error, width: step * unit,
    nodes: nodes.map(({ point, value }) => ({ point, weight: Math.exp(value - total) })),
  };
}

class Stale extends Error {} // a newer question has come
