// Podfile: pod 'TensorFlowLiteSwift', '2.17.0'
// Add @FILE@ to the target of the app, so that it is copied into its bundle.
import Foundation
import TensorFlowLite
import UIKit

private let height = @HEIGHT@, width = @WIDTH@, channels = @CHANNELS@, latent = @LATENT@
?condition private let conditionSize = @CONDITION_SIZE@

/// Draws pictures. Use one object in one thread at a time, not in the main thread.
final class Decoder {
  private let sampler: SignatureRunner
  private let decoder: SignatureRunner

  init() throws {
    guard let path = Bundle.main.path(forResource: "@STEM@", ofType: "tflite") else {
      throw CocoaError(.fileNoSuchFile)
    }
    let interpreter = try Interpreter(modelPath: path)
    sampler = try interpreter.signatureRunner(with: "sample_1")
    decoder = try interpreter.signatureRunner(with: "decode_1")
  }

  /// The picture of a seed, as means in [0, 1], with its latent vector. One seed gives one picture, on every device.
?plain   func sample(seed: Int32) throws -> (means: [Float], z: [Float]) {
?plain     try sampler.invoke(with: ["seed": bytes([seed])])
?condition   func sample(seed: Int32, condition: [Float]) throws -> (means: [Float], z: [Float]) {
?condition     try sampler.invoke(with: ["seed": bytes([seed]), "condition": bytes(condition)])
    // The output "images" is a draw of UInt8, whose pixels are noisy.
    let means = try sampler.output(named: "means")
    let z = try sampler.output(named: "z")
    return (floats(means), floats(z))
  }

  /// The means of the pixels in [0, 1] for a latent vector, in the order [y][x][channel].
?plain   func decode(z: [Float]) throws -> [Float] {
?plain     try decoder.invoke(with: ["z": bytes(z)])
?condition   func decode(z: [Float], condition: [Float]) throws -> [Float] {
?condition     try decoder.invoke(with: ["z": bytes(z), "condition": bytes(condition)])
    let means = try decoder.output(named: "means")
    return floats(means)
  }

  private func bytes<Number>(_ numbers: [Number]) -> Data {
    numbers.withUnsafeBufferPointer { Data(buffer: $0) }
  }

  private func floats(_ tensor: Tensor) -> [Float] {
    tensor.data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
  }
}

/// A picture of means.
func picture(_ means: [Float]) -> UIImage? {
  let pixels = Data(means.map { UInt8((255 * $0).rounded()) })
  guard let provider = CGDataProvider(data: pixels as CFData),
    let image = CGImage(
      width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 8 * channels, bytesPerRow: width * channels,
?grey       space: CGColorSpaceCreateDeviceGray(), bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.none.rawValue),
?colour       space: CGColorSpaceCreateDeviceRGB(), bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.none.rawValue),
      provider: provider, decode: nil, shouldInterpolate: false, intent: .defaultIntent)
  else { return nil }
  return UIImage(cgImage: image)
}

/// The picture of a seed and that of a latent vector.
func example() throws -> [UIImage?] {
  let decoder = try Decoder()
?condition   var condition = [Float](repeating: 0, count: conditionSize)
?condition   condition[0] = 1  // the condition of the picture: put yours here
?plain   let drawn = try decoder.sample(seed: @SEED@)
?condition   let drawn = try decoder.sample(seed: @SEED@, condition: condition)
  let expected: [Float] = [@Z@]
  precondition(zip(drawn.z, expected).allSatisfy { abs($0 - $1) < 1e-4 }, "\(drawn.z)")
  var z = [Float](repeating: 0, count: latent)
  z[0] = 1
?plain   return [picture(drawn.means), picture(try decoder.decode(z: z))]
?condition   return [picture(drawn.means), picture(try decoder.decode(z: z, condition: condition))]
}
