
// --- Priors: z of a seed, and log p(z); kvae/runtime/plain_prior.py draws the same z in Python

const CHOICE = 3; // a stream of random numbers: which component
const MOST_LOG_SCALE = 2;

const LOG_TWO_PI = Math.log(2 * Math.PI);
const logStandardNormal = (z) => z.reduce((sum, value) => sum - (value ** 2 + LOG_TWO_PI) / 2, 0);

const PRIORS = {
  standard_normal: {
    draw: (prior, numbers) => numbers,
    logDensity: (prior, z) => logStandardNormal(z),
  },

  // A component has the whole numbers below its end, and not below the end before, as its share of 2^24.
  mixture: {
    draw({ ends, means, deviations }, numbers, seed) {
      const number = words(seed, CHOICE, 1)[0] >>> 8;
      const first = ends.filter((end) => end <= number).length * numbers.length;
      return numbers.map((value, d) => means[first + d] + fround(deviations[first + d] * value));
    },
    logDensity({ ends, means, deviations }, z) {
      let sum = 0, greatest = -Infinity;
      for (let k = 0, i = 0; k < ends.length; k++) {
        let term = Math.log((ends[k] - (k ? ends[k - 1] : 0)) / 2 ** 24);
        for (let d = 0; d < z.length; d++, i++) {
          term -= (((z[d] - means[i]) / deviations[i]) ** 2 + LOG_TWO_PI) / 2 + Math.log(deviations[i]);
        }
        if (term === -Infinity) continue;
        if (term > greatest) [sum, greatest] = [sum * Math.exp(greatest - term), term];
        sum += Math.exp(term - greatest);
      }
      return greatest + Math.log(sum);
    },
  },

  // Affine couplings: each keeps some coordinates, and scales and shifts the others by what it makes of these.
  couplings: {
    draw({ couplings }, numbers) {
      return couplings.reduce((z, { kept, layers }) => {
        const { logScale, shift } = coupled(z, kept, layers);
        return z.map((value, d) => (kept[d] ? value : fround(value * Math.exp(logScale(d))) + shift(d)));
      }, numbers);
    },
    logDensity({ couplings }, z) {
      let e = Array.from(z), sum = 0;
      for (const { kept, layers } of [...couplings].reverse()) {
        const { logScale, shift } = coupled(e, kept, layers);
        e = e.map((value, d) => {
          if (kept[d]) return value;
          sum -= logScale(d);
          return (value - shift(d)) * Math.exp(-logScale(d));
        });
      }
      return logStandardNormal(e) + sum;
    },
  },
};

function coupled(z, kept, layers) {
  const found = run(layers, Float32Array.from(z, (value, d) => (kept[d] ? value : 0)));
  return {
    logScale: (d) => MOST_LOG_SCALE * Math.tanh(found[d] / MOST_LOG_SCALE),
    shift: (d) => found[z.length + d],
  };
}

// The prior of a page; that of a page without one is the standard normal, of which the page shows and sums up [-7, 7]^D.
function openPrior({ prior, latent_dim }, buffer) {
  const origin = new Array(latent_dim).fill(0);
  if (!prior) return { kind: "standard_normal", middle: origin, reach: 7, centre: origin };
  const network = (layers) => layers.map((layer) => openLayer(layer, buffer));
  const opened = { ...prior, couplings: prior.couplings?.map(({ kept, layers }) => ({ kept, layers: network(layers) })) };
  for (const name of ["ends", "means", "deviations"]) if (prior[name]) opened[name] = arrayOf(buffer, prior[name]);
  return opened;
}

// z ~ p(z) of a seed.
function drawPrior({ prior, latent_dim, quantiles }, seed) {
  return PRIORS[prior.kind].draw(prior, normals(seed, LATENT, latent_dim, quantiles), seed);
}

// log p(z) in nats.
function logPrior({ prior }, z) {
  return PRIORS[prior.kind].logDensity(prior, z);
}
