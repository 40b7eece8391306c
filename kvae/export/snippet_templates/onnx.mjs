// npm install onnxruntime-web@1.30.0; then, in the folder of @FILE@: node draw.mjs
// In a browser, pass the bytes from `fetch`, and show new ImageData(rgba(means), width, height) in a canvas.
import { readFile, writeFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";

const height = @HEIGHT@, width = @WIDTH@, channels = @CHANNELS@, latent = @LATENT@;
const session = await ort.InferenceSession.create(await readFile("@FILE@"));

const floats = (numbers, shape) => new ort.Tensor("float32", Float32Array.from(numbers), shape);
const seeds = (numbers) => new ort.Tensor("int32", Int32Array.from(numbers), [numbers.length]);
// Both functions are in one graph, and all inputs must be given: an input of 0 rows skips its function.
const nothing = {
  sample_seed: seeds([]),
  decode_z: floats([], [0, latent]),
?condition   sample_condition: floats([], [0, @CONDITION_SHAPE@]),
?condition   decode_condition: floats([], [0, @CONDITION_SHAPE@]),
};
?condition const numbers = new Float32Array(@CONDITION_SIZE@);
?condition numbers[0] = 1; // the condition of the picture: put yours here
?condition const condition = floats(numbers, [1, @CONDITION_SHAPE@]);

// Means in [0, 1], in the order [y][x][channel], as the bytes that an ImageData has.
function rgba(means) {
  const bytes = new Uint8ClampedArray(4 * height * width).fill(255);
  for (let pixel = 0; pixel < height * width; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
?grey       bytes[4 * pixel + channel] = Math.round(255 * means[pixel]);
?colour       bytes[4 * pixel + channel] = Math.round(255 * means[3 * pixel + channel]);
    }
  }
  return bytes;
}

// Writes a picture that most viewers open.
async function save(path, means) {
  const pixels = Buffer.from(means.map((mean) => Math.round(255 * mean)));
  await writeFile(path, Buffer.concat([Buffer.from(`@PNM@ ${width} ${height} 255\n`), pixels]));
}

?plain const drawn = await session.run({ ...nothing, sample_seed: seeds([@SEED@]) });
?condition const drawn = await session.run({ ...nothing, sample_seed: seeds([@SEED@]), sample_condition: condition });
const expected = [@Z@];
if (!expected.every((value, i) => Math.abs(drawn.sample_z.data[i] - value) < 1e-4)) {
  throw new Error(`z is ${drawn.sample_z.data}`); // one seed gives one picture, on every device
}
await save("sample.@EXTENSION@", drawn.sample_means.data); // sample_images is a draw, whose pixels are noisy

const z = new Float32Array(latent);
z[0] = 1;
?plain const decoded = await session.run({ ...nothing, decode_z: floats(z, [1, latent]) });
?condition const decoded = await session.run({ ...nothing, decode_z: floats(z, [1, latent]), decode_condition: condition });
await save("decoded.@EXTENSION@", decoded.decode_means.data);
