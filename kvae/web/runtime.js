// The decoder: the data of the page, portable random numbers, the layers of networks, and the likelihoods.
//
// One seed gives the z of kvae on every other runtime, bit for bit: kvae/noise/portable.py has the same arithmetic.
// Numbers are float32 between layers, as everywhere in kvae; the sums within a layer are float64.
"use strict";

// --- The data of the page: a description in JSON, and all arrays one after another, in base64

function bytesOfBase64(text) {
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

const ARRAYS = { float32: Float32Array, int32: Int32Array, uint16: Uint16Array, uint8: Uint8Array, int8: Int8Array };

// The array that a description {type, shape, at} names; int8 weights are multiplied by the scale of their output.
function arrayOf(buffer, { type, shape, at, scales }) {
  const values = new ARRAYS[type](buffer, at, shape.reduce((product, side) => product * side, 1));
  if (!scales) return values;
  const factors = arrayOf(buffer, scales);
  const inputs = values.length / factors.length;
  return Float32Array.from(values, (value, i) => factors[Math.floor(i / inputs)] * value);
}

function openModel(description, base64) {
  const buffer = bytesOfBase64(base64).buffer;
  const network = (layers) => layers && layers.map((layer) => openLayer(layer, buffer));
  const encoder = description.encoder;
  return {
    ...description,
    quantiles: arrayOf(buffer, description.quantiles),
    decoder: network(description.decoder),
    prior: openPrior(description, buffer),
    classCount: description.classes?.count ?? 0,
    encoder: encoder && { ...encoder, body: network(encoder.body), mean: network(encoder.mean), scale: network(encoder.scale) },
    pixels: description.image_shape.reduce((product, side) => product * side, 1),
  };
}

function openLayer(layer, buffer) {
  const opened = { ...layer };
  for (const name of ["kernel", "bias", "factor", "offset"]) if (layer[name]) opened[name] = arrayOf(buffer, layer[name]);
  if (layer.kernel) opened.sides = layer.kernel.shape;
  return opened;
}

// --- Portable random numbers

const GOLDEN = 0x9e3779b9;
const LATENT = 0, PIXELS = 1, SEEDS = 2; // streams: what the numbers are for

function mix(bits) {
  bits = Math.imul(bits ^ (bits >>> 16), 0x7feb352d);
  bits = Math.imul(bits ^ (bits >>> 15), 0x846ca68b);
  return (bits ^ (bits >>> 16)) >>> 0;
}

function words(seed, stream, count) {
  const first = mix(seed ^ Math.imul(2 * stream + 1, GOLDEN));
  const second = mix(seed ^ Math.imul(2 * stream + 2, GOLDEN));
  return Uint32Array.from({ length: count }, (_, i) => mix(mix(Math.imul(i, GOLDEN) ^ first) ^ second));
}

function uniforms(seed, stream, count) {
  return Float32Array.from(words(seed, stream, count), (word) => (word >>> 8) * 2 ** -24);
}

// The first bit is the sign; the others are a probability, whose quantile is interpolated in a table of 12 segments.
function normals(seed, stream, count, quantiles) {
  return Float32Array.from(words(seed, stream, count), (word) => {
    const probability = word & 0x7fffffff; // in units of 2^-31
    const segment = Math.min(Math.clz32(0x7fffffff - probability) - 1, 11);
    const start = 0x80000000 - 2 ** (31 - segment);
    const within = (probability - start) >> (10 - Math.min(segment, 10));
    const index = segment * 256 + (within >> 12);
    const low = quantiles[index];
    const size = low + (((quantiles[index + 1] - low) * (within & 4095) + 2048) >> 12);
    return (word >>> 31 ? -size : size) * 2 ** -20;
  });
}

// The seeds of n images of a set, as `kvae sample --seed` takes them.
function seedsOf(n, seed) {
  const key = mix(mix(seed ^ Math.imul(2 * SEEDS + 1, GOLDEN)));
  return Int32Array.from({ length: n }, (_, i) => mix(Math.imul(i, GOLDEN) ^ key));
}

// --- Networks: a list of layers, each a function of a Float32Array; images are [height, width, channels]

const ACTIVATIONS = {
  linear: (x) => x,
  relu: (x) => Math.max(x, 0),
  leaky_relu: (x, slope = 0.2) => (x < 0 ? slope * x : x),
  elu: (x) => (x < 0 ? Math.expm1(x) : x),
  selu: (x) => 1.0507009873554805 * (x < 0 ? 1.6732632423543772 * Math.expm1(x) : x),
  tanh: Math.tanh,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  silu: (x) => x / (1 + Math.exp(-x)),
  softplus: (x) => softplus(x),
  softsign: (x) => x / (1 + Math.abs(x)),
  exponential: Math.exp,
};

function softplus(x) {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}

function activate(values, { activation = "linear", slope }) {
  if (activation === "linear") return values;
  const f = ACTIVATIONS[activation];
  for (let i = 0; i < values.length; i++) values[i] = f(values[i], slope);
  return values;
}

// `condition` is what a layer "join" appends: for a model with classes, 1 for the class and 0 for all others.
function run(layers, x, condition) {
  return layers.reduce((values, layer) => activate(LAYERS[layer.kind](values, layer, condition), layer), x);
}

const LAYERS = {
  // The kernel is [outputs, inputs]; four sums at a time let the processor work on all of them at once.
  dense(x, { kernel, bias, sides: [outputs, inputs] }) {
    const rows = x.length / inputs;
    const y = new Float32Array(rows * outputs);
    for (let row = 0, place = 0; row < rows; row++) {
      for (let o = 0, k = 0; o < outputs; o++, place++) {
        let a = bias ? bias[o] : 0, b = 0, c = 0, d = 0;
        let i = row * inputs;
        const end = i + inputs;
        for (; i + 3 < end; i += 4, k += 4) {
          a += x[i] * kernel[k];
          b += x[i + 1] * kernel[k + 1];
          c += x[i + 2] * kernel[k + 2];
          d += x[i + 3] * kernel[k + 3];
        }
        for (; i < end; i++, k++) a += x[i] * kernel[k];
        y[place] = a + b + c + d;
      }
    }
    return y;
  },

  // Every input pixel adds to the output pixels that see it, at distance (r, c) in the kernel.
  convolution(x, layer) {
    return convolve(x, layer, (i, r, stride, before) => (i + before - r) / stride);
  },

  transposed_convolution(x, layer) {
    return convolve(x, layer, (i, r, stride, before) => i * stride + r - before);
  },

  reshape: (x) => x,

  join: (x, layer, condition) => Float32Array.from([...x, ...condition]),

  crop(x, { input: [height, width, channels], top, bottom, left, right }) {
    const rows = [];
    for (let r = top; r < height - bottom; r++) {
      rows.push(x.subarray((r * width + left) * channels, (r * width + width - right) * channels));
    }
    const y = new Float32Array(rows.length * (width - left - right) * channels);
    rows.forEach((row, r) => y.set(row, r * row.length));
    return y;
  },

  upsample(x, { input: [height, width, channels], output: [rows, columns] }) {
    const y = new Float32Array(rows * columns * channels);
    for (let r = 0, place = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++, place += channels) {
        const from = (Math.floor((r * height) / rows) * width + Math.floor((c * width) / columns)) * channels;
        y.set(x.subarray(from, from + channels), place);
      }
    }
    return y;
  },

  // Batch normalization after the training: each channel times a factor, plus an offset.
  scale(x, { factor, offset }) {
    return x.map((value, i) => value * factor[i % factor.length] + offset[i % factor.length]);
  },

  activation: (x) => x.slice(),
};

function convolve(x, layer, target) {
  const { kernel, bias, input, output, strides, before } = layer;
  const [rows, columns, inputs, outputs] = layer.sides;
  const sums = new Float64Array(output[0] * output[1] * outputs);
  for (let i = 0; i < input[0]; i++) {
    for (let r = 0; r < rows; r++) {
      const y = target(i, r, strides[0], before[0]);
      if (!Number.isInteger(y) || y < 0 || y >= output[0]) continue;
      for (let j = 0; j < input[1]; j++) {
        for (let c = 0; c < columns; c++) {
          const z = target(j, c, strides[1], before[1]);
          if (!Number.isInteger(z) || z < 0 || z >= output[1]) continue;
          const to = (y * output[1] + z) * outputs;
          const from = (i * input[1] + j) * inputs;
          for (let n = 0, k = (r * columns + c) * inputs * outputs; n < inputs; n++) {
            const value = x[from + n];
            if (value === 0) k += outputs;
            else for (let o = 0; o < outputs; o++, k++) sums[to + o] += value * kernel[k];
          }
        }
      }
    }
  }
  return Float32Array.from(sums, (sum, i) => sum + (bias ? bias[i % outputs] : 0));
}

// --- Likelihoods: the mean and a draw of a pixel, from the number that the decoder returns for it

const fround = Math.fround;

const LIKELIHOODS = {
  bernoulli: {
    mean: ACTIVATIONS.sigmoid,
    draw: (logit, mean, number) => (number < mean ? 1 : 0),
    noise: uniforms,
  },
  continuous_bernoulli: {
    mean(l) {
      return Math.abs(l) < 0.2 ? 0.5 + l / 12 - l ** 3 / 720 : -1 / Math.expm1(-l) - 1 / l;
    },
    draw(l, mean, u) {
      if (Math.abs(l) < 0.05) {
        const scaled = u * (1 - u) * l;
        return u + scaled * (0.5 + ((1 - 2 * u) * l) / 6);
      }
      const size = Math.abs(l);
      const x = -Math.log1p((l > 0 ? 1 - u : u) * Math.expm1(-size)) / size;
      return l > 0 ? 1 - x : x;
    },
    noise: uniforms,
  },
  gaussian: {
    mean: ACTIVATIONS.sigmoid,
    draw: (logit, mean, number, { variance }) => mean + Math.sqrt(variance) * number,
    noise: normals,
  },
};
LIKELIHOODS.squared_error = LIKELIHOODS.gaussian;

function meansOf(model, parameters) {
  return parameters.map(LIKELIHOODS[model.likelihood.name].mean);
}

// A value in [0, 1] as a byte, as NumPy rounds it: halves to the even neighbour.
function byteOf(value) {
  const scaled = fround(fround(Math.min(Math.max(value, 0), 1)) * 255);
  const whole = Math.floor(scaled);
  return scaled - whole === 0.5 ? whole + (whole % 2) : Math.round(scaled);
}

// The condition of a class by its number; of a model without classes, nothing.
function conditionOf({ classCount }, label) {
  return Float32Array.from({ length: classCount }, (_, i) => (i === label ? 1 : 0));
}

function decode(model, z, label) {
  const parameters = run(model.decoder, Float32Array.from(z), conditionOf(model, label));
  return { parameters, means: meansOf(model, parameters) };
}

// The image of one seed, and of a class if the model has any: its z, the means and a draw of p(x|z), both in bytes.
function sample(model, seed, label) {
  const z = drawPrior(model, seed);
  const { parameters, means } = decode(model, z, label);
  const { draw, noise } = LIKELIHOODS[model.likelihood.name];
  const numbers = noise(seed, PIXELS, model.pixels, model.quantiles);
  const drawn = Uint8Array.from(numbers, (number, i) => byteOf(draw(parameters[i], means[i], number, model.likelihood)));
  return { z, means: Uint8Array.from(means, byteOf), draw: drawn };
}
