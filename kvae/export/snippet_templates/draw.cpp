// Needs the library TensorFlow Lite (LiteRT) and its headers, for example from its CMake target tensorflow-lite. With
// the package libtensorflow-lite-dev of Debian: g++ -std=c++17 draw.cpp -ltensorflow-lite -o draw && ./draw
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "tensorflow/lite/interpreter.h"
#include "tensorflow/lite/interpreter_builder.h"
#include "tensorflow/lite/kernels/register.h"
#include "tensorflow/lite/model_builder.h"
#include "tensorflow/lite/signature_runner.h"

constexpr int kHeight = @HEIGHT@, kWidth = @WIDTH@, kChannels = @CHANNELS@, kLatent = @LATENT@;
?condition constexpr int kCondition = @CONDITION_SIZE@;

void check(bool good, const char* what) {
  if (!good) {
    std::fprintf(stderr, "Failed: %s\n", what);
    std::exit(1);
  }
}

tflite::SignatureRunner* signature(tflite::Interpreter& interpreter, const char* name) {
  tflite::SignatureRunner* runner = interpreter.GetSignatureRunner(name);
  check(runner != nullptr && runner->AllocateTensors() == kTfLiteOk, name);
  return runner;
}

// Writes a picture of means in [0, 1], in the order [y][x][channel], which most viewers open.
void save(const char* path, const float* means) {
  std::FILE* file = std::fopen(path, "wb");
  check(file != nullptr, path);
  std::fprintf(file, "@PNM@ %d %d 255\n", kWidth, kHeight);
  for (int i = 0; i < kHeight * kWidth * kChannels; ++i) {
    std::fputc(static_cast<int>(std::lround(255 * means[i])), file);
  }
  check(std::fclose(file) == 0, path);
}

?condition // The condition of the picture: put yours here.
?condition void set_condition(float* condition) {
?condition   std::fill_n(condition, kCondition, 0.0f);
?condition   condition[0] = 1;
?condition }
?condition 
int main() {
  auto model = tflite::FlatBufferModel::BuildFromFile("@FILE@");
  check(model != nullptr, "reading @FILE@");
  tflite::ops::builtin::BuiltinOpResolver operations;
  std::unique_ptr<tflite::Interpreter> interpreter;
  check(tflite::InterpreterBuilder(*model, operations)(&interpreter) == kTfLiteOk, "loading @FILE@");

  // One seed gives one picture, on every device. The output "images" is a draw, whose pixels are noisy.
  tflite::SignatureRunner* sample = signature(*interpreter, "sample_1");
  sample->input_tensor("seed")->data.i32[0] = @SEED@;
?condition   set_condition(sample->input_tensor("condition")->data.f);
  check(sample->Invoke() == kTfLiteOk, "sample");
  const float expected[] = {@Z_FLOAT@};
  for (int i = 0; i < @COUNT@; ++i) {
    check(std::abs(sample->output_tensor("z")->data.f[i] - expected[i]) < 1e-4f, "z of the seed");
  }
  save("sample.@EXTENSION@", sample->output_tensor("means")->data.f);

  tflite::SignatureRunner* decode = signature(*interpreter, "decode_1");
  float* z = decode->input_tensor("z")->data.f;
  std::fill_n(z, kLatent, 0.0f);
  z[0] = 1;
?condition   set_condition(decode->input_tensor("condition")->data.f);
  check(decode->Invoke() == kTfLiteOk, "decode");
  save("decoded.@EXTENSION@", decode->output_tensor("means")->data.f);
}
