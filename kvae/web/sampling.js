
// --- The posterior in a latent space of any size, by adaptive importance sampling
//
// Cornuet, Marin, Mira and Robert, "Adaptive multiple importance sampling" (2012): every round draws points from a
// normal distribution that was fitted to all weighted points so far, and the weight of a point is p(x, z) over the
// mixture of all proposals. The first is the q(z|x) of the encoder, and a tenth of all points come from the prior.

const ROUND = 200; // points
const ROUNDS = 15; // at most
const ENOUGH = 300; // effective samples, with which it ends
const PRIOR_SHARE = 0.1;
const FILLINGS = 4; // rounds in which hidden pixels are filled by what the encoder and the decoder make of them

// q(z|x) of the encoder, for an image without hidden pixels; given its class, if the model has any.
function encode(x, label) {
  const { body, mean, scale, log_sigma } = model.encoder;
  const hidden = run(body, Float32Array.from(x), conditionOf(model, label));
  const factor = log_sigma ? 2 : 1;
  return { mean: Array.from(run(mean, hidden)), logVariance: Array.from(run(scale, hidden), (value) => factor * value) };
}

// A normal distribution from its mean and the Cholesky factor of its covariance.
function normalDistribution(mean, factor) {
  const D = mean.length;
  const logScale = factor.reduce((sum, row, d) => sum + Math.log(row[d]), 0) + (D / 2) * Math.log(2 * Math.PI);
  return {
    draw: (numbers) => mean.map((value, d) => value + factor[d].reduce((sum, weight, e) => sum + weight * numbers[e], 0)),
    logDensity(z) {
      const y = []; // factor y = z - mean
      let sum = 0;
      for (let d = 0; d < D; d++) {
        let rest = z[d] - mean[d];
        for (let e = 0; e < d; e++) rest -= factor[d][e] * y[e];
        y.push(rest / factor[d][d]);
        sum += y[d] ** 2;
      }
      return -sum / 2 - logScale;
    },
  };
}

// The lower triangular factor of a symmetric matrix with positive eigenvalues, row by row without zeros.
function cholesky(matrix) {
  const factor = [];
  matrix.forEach((row, d) => {
    factor.push([]);
    for (let e = 0; e <= d; e++) {
      let rest = row[e];
      for (let k = 0; k < e; k++) rest -= factor[d][k] * factor[e][k];
      factor[d].push(e < d ? rest / factor[e][e] : Math.sqrt(Math.max(rest, 1e-8)));
    }
  });
  return factor;
}

// The normal distribution with the moments of weighted points. Covariances that few points determine shrink.
function fitted(points, weights) {
  const D = model.latent_dim;
  const effective = 1 / weights.reduce((sum, weight) => sum + weight ** 2, 0);
  const mean = new Array(D).fill(0);
  const covariance = Array.from({ length: D }, () => new Array(D).fill(0));
  points.forEach(({ z }, i) => z.forEach((value, d) => (mean[d] += weights[i] * value)));
  points.forEach(({ z }, i) => {
    for (let d = 0; d < D; d++) {
      for (let e = 0; e <= d; e++) covariance[d][e] += weights[i] * (z[d] - mean[d]) * (z[e] - mean[e]);
    }
  });
  const kept = effective / (effective + D);
  covariance.forEach((row, d) => {
    for (let e = 0; e <= d; e++) row[e] *= e < d ? kept : 1.2; // a little wider, because too narrow is worse
    row[d] += 1e-4;
  });
  return normalDistribution(mean, cholesky(covariance));
}

// Weights that sum to 1, from their logarithms times a power.
function normalized(logWeights, power = 1) {
  const greatest = logWeights.reduce((most, value) => Math.max(most, value), -Infinity);
  const weights = logWeights.map((value) => Math.exp(power * (value - greatest)));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return { weights: weights.map((weight) => weight / sum), log: greatest + Math.log(sum) };
}

const effectiveSize = (weights) => 1 / weights.reduce((sum, weight) => sum + weight ** 2, 0);

// The greatest power of the weights, at most 1, with which enough points count to fit a distribution to them.
function tempered(logWeights) {
  const least = Math.min(3 * model.latent_dim + 10, logWeights.length / 4);
  let [low, high] = [0, 1];
  if (effectiveSize(normalized(logWeights).weights) >= least) return normalized(logWeights).weights;
  for (let i = 0; i < 30; i++) {
    const middle = (low + high) / 2;
    if (effectiveSize(normalized(logWeights, middle).weights) >= least) low = middle;
    else high = middle;
  }
  return normalized(logWeights, low).weights;
}

// The same as `posterior`, with the effective sample size; `error` is a standard error.
async function sampledPosterior(x, pixels, { stale, progress, label }) {
  const D = model.latent_dim, shared = sharedTerm(x, pixels);
  const most = Math.min(ROUND * ROUNDS, Math.floor(MEMORY / (8 * model.pixels)));
  const prior = { draw: (numbers, seed) => drawPrior(model, seed), logDensity: (z) => logPrior(model, z) };
  const proposals = [{ ...prior, count: 0 }], points = [];
  let next = firstProposal(x, pixels, label), start = performance.now(), result;
  do {
    const proposal = { ...next, count: 0 };
    proposals.push(proposal);
    for (let n = 0; n < ROUND; n++) {
      const from = n < PRIOR_SHARE * ROUND ? proposals[0] : proposal;
      from.count++;
      const seed = points.length;
      const z = from.draw(normals(seed, LATENT, D, model.quantiles), seed);
      const point = openPoint(z, label);
      points.push({ ...point, value: logJoint(point, x, pixels) });
      if (performance.now() - start > SLICE) {
        progress(points.length / most);
        await pause();
        if (stale()) throw new Stale();
        start = performance.now();
      }
    }
    const logWeights = points.map(({ z, value }) => value - logMixture(proposals, z, points.length));
    const { weights, log } = normalized(logWeights);
    const effective = effectiveSize(weights);
    result = {
      log: shared + log - Math.log(points.length), effective, count: points.length,
      error: Math.sqrt(Math.max(1 / effective - 1 / points.length, 0)),
      nodes: points.map((point, i) => ({ point, weight: weights[i] })),
    };
    next = fitted(points, tempered(logWeights));
  } while (result.effective < ENOUGH && points.length + ROUND <= most);
  return result;
}

function logMixture(proposals, z, total) {
  const terms = proposals.map(({ count, logDensity }) => Math.log(count / total) + logDensity(z));
  const greatest = Math.max(...terms);
  return greatest + Math.log(terms.reduce((sum, term) => sum + Math.exp(term - greatest), 0));
}

// The q(z|x) of the encoder, after the hidden pixels were filled by the means of the decoder.
function firstProposal(x, pixels, label) {
  const filled = decode(model, model.prior.centre, label).means;
  const fill = () => pixels.forEach((p) => (filled[p] = x[p]));
  fill();
  let q = encode(filled, label);
  for (let i = 0; i < FILLINGS && pixels.length < model.pixels; i++) {
    filled.set(decode(model, q.mean, label).means);
    fill();
    q = encode(filled, label);
  }
  const factor = q.logVariance.map((value, d) => [...new Array(d).fill(0), Math.exp(Math.min(value, 0) / 2) * 1.2]);
  return normalDistribution(q.mean, factor);
}
