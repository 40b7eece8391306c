// The declarations of TensorFlow Lite that a program needs. They answer with what the real interpreter has put out for
// the same inputs, recorded in the folder "recorded".
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

enum TfLiteStatus { kTfLiteOk, kTfLiteError };

struct TfLiteTensor {
  union {
    int32_t* i32;
    float* f;
    uint8_t* uint8;
    char* raw;
  } data;
};

namespace tflite {

class SignatureRunner {
 public:
  explicit SignatureRunner(const std::string& name) {
    for (const auto& entry : std::filesystem::directory_iterator("recorded")) {
      const std::string file = entry.path().filename().string();
      for (bool input : {true, false}) {
        const std::string prefix = name + (input ? ".input." : ".output.");
        if (file.rfind(prefix, 0) == 0) {
          std::ifstream stream(entry.path(), std::ios::binary);
          recorded_[input][file.substr(prefix.size())].assign(std::istreambuf_iterator<char>(stream), {});
        }
      }
    }
    for (auto& values : recorded_) {
      for (auto& [key, content] : values.second) {
        content_[values.first][key].resize(content.size());
        tensors_[values.first][key].data.raw = content_[values.first][key].data();
      }
    }
  }
  bool empty() const { return tensors_.empty(); }
  TfLiteStatus AllocateTensors() { return kTfLiteOk; }
  TfLiteTensor* input_tensor(const char* name) { return &tensors_.at(true).at(name); }
  const TfLiteTensor* output_tensor(const char* name) const { return &tensors_.at(false).at(name); }
  TfLiteStatus Invoke() {
    if (content_[true] != recorded_[true]) return kTfLiteError;
    for (auto& [key, content] : recorded_[false]) {
      std::copy(content.begin(), content.end(), content_[false][key].begin());
    }
    return kTfLiteOk;
  }

 private:
  std::map<bool, std::map<std::string, std::vector<char>>> recorded_, content_;  // of inputs (true) and outputs
  std::map<bool, std::map<std::string, TfLiteTensor>> tensors_;
};

class Interpreter {
 public:
  SignatureRunner* GetSignatureRunner(const char* name) {
    auto& runner = runners_[name];
    if (!runner) runner = std::make_unique<SignatureRunner>(name);
    return runner->empty() ? nullptr : runner.get();
  }

 private:
  std::map<std::string, std::unique_ptr<SignatureRunner>> runners_;
};

class FlatBufferModel {
 public:
  static std::unique_ptr<FlatBufferModel> BuildFromFile(const char* path) {
    return std::filesystem::is_regular_file(path) ? std::make_unique<FlatBufferModel>() : nullptr;
  }
};

namespace ops::builtin {
class BuiltinOpResolver {};
}  // namespace ops::builtin

class InterpreterBuilder {
 public:
  InterpreterBuilder(const FlatBufferModel&, const ops::builtin::BuiltinOpResolver&) {}
  TfLiteStatus operator()(std::unique_ptr<Interpreter>* interpreter) {
    *interpreter = std::make_unique<Interpreter>();
    return kTfLiteOk;
  }
};

}  // namespace tflite
