// build.gradle.kts: implementation("com.google.ai.edge.litert:litert:1.4.1")
// Copy @FILE@ into src/main/assets.
import android.content.Context
import android.graphics.Bitmap
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import kotlin.math.abs
import kotlin.math.roundToInt
import org.tensorflow.lite.Interpreter

private const val HEIGHT = @HEIGHT@
private const val WIDTH = @WIDTH@
private const val CHANNELS = @CHANNELS@
private const val PIXELS = HEIGHT * WIDTH * CHANNELS
private const val LATENT = @LATENT@
?condition private const val CONDITION = @CONDITION_SIZE@

/** Draws pictures. Use one object in one thread at a time, not in the thread of the user interface. */
class Decoder(context: Context) : AutoCloseable {
    /** `images` is a draw, whose pixels are noisy. Its bytes are signed: `byte.toInt() and 0xFF` is in 0..255. */
    class Drawn(val images: ByteArray, val means: FloatArray, val z: FloatArray)

    private val interpreter = Interpreter(model(context))

    /** The picture of a seed. One seed gives one picture, on every device. */
?plain     fun sample(seed: Int): Drawn {
?condition     fun sample(seed: Int, condition: FloatArray): Drawn {
        val images = ByteBuffer.allocate(PIXELS)
        val means = FloatBuffer.allocate(PIXELS)
        val z = FloatBuffer.allocate(LATENT)
?plain         val inputs = mapOf<String, Any>("seed" to intArrayOf(seed))
?condition         val inputs = mapOf<String, Any>("seed" to intArrayOf(seed), "condition" to FloatBuffer.wrap(condition))
        val outputs = mapOf<String, Any>("images" to images, "means" to means, "z" to z)
        interpreter.runSignature(inputs, outputs, "sample_1")
        return Drawn(images.array(), means.array(), z.array())
    }

    /** The means of the pixels in [0, 1] for a latent vector of LATENT numbers, in the order [y][x][channel]. */
?plain     fun decode(z: FloatArray): FloatArray {
?condition     fun decode(z: FloatArray, condition: FloatArray): FloatArray {
        val means = FloatBuffer.allocate(PIXELS)
?plain         val inputs = mapOf<String, Any>("z" to FloatBuffer.wrap(z))
?condition         val inputs = mapOf<String, Any>("z" to FloatBuffer.wrap(z), "condition" to FloatBuffer.wrap(condition))
        interpreter.runSignature(inputs, mapOf<String, Any>("means" to means), "decode_1")
        return means.array()
    }

    override fun close() = interpreter.close()

    private fun model(context: Context): ByteBuffer {
        val bytes = context.assets.open("@FILE@").use { it.readBytes() }
        val buffer = ByteBuffer.allocateDirect(bytes.size).order(ByteOrder.nativeOrder())
        buffer.put(bytes).rewind()
        return buffer
    }
}

/** A picture of means. */
fun bitmap(means: FloatArray): Bitmap {
    val colours = IntArray(HEIGHT * WIDTH) { pixel ->
        fun channel(index: Int) = (255 * means[pixel * CHANNELS + index]).roundToInt()
?grey         val (red, green, blue) = List(3) { channel(0) }
?colour         val (red, green, blue) = List(3) { channel(it) }
        (0xFF shl 24) or (red shl 16) or (green shl 8) or blue
    }
    return Bitmap.createBitmap(colours, WIDTH, HEIGHT, Bitmap.Config.ARGB_8888)
}

/** The picture of a seed and that of a latent vector. */
fun example(context: Context): Pair<Bitmap, Bitmap> =
    Decoder(context).use { decoder ->
?condition         val condition = FloatArray(CONDITION).also { it[0] = 1f } // the condition of the picture: put yours here
?plain         val drawn = decoder.sample(@SEED@)
?condition         val drawn = decoder.sample(@SEED@, condition)
        val expected = floatArrayOf(@Z_FLOAT@)
        check(expected.indices.all { abs(drawn.z[it] - expected[it]) < 1e-4f }) { drawn.z.contentToString() }
        val z = FloatArray(LATENT).also { it[0] = 1f }
?plain         bitmap(drawn.means) to bitmap(decoder.decode(z))
?condition         bitmap(drawn.means) to bitmap(decoder.decode(z, condition))
    }
