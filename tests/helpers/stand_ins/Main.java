import android.content.Context;
import android.graphics.Bitmap;
import java.io.DataOutputStream;
import java.io.FileOutputStream;
import java.util.Map;

/** Calls `example` of the package that the command line names, and writes the colours of both pictures. */
public class Main {
    public static void main(String[] arguments) throws Exception {
        Class<?> program = Class.forName(arguments[0] + ".DecoderKt");
        Object pictures = program.getMethod("example", Context.class).invoke(null, new Context());
        for (var entry : Map.of("sample.argb", "getFirst", "decoded.argb", "getSecond").entrySet()) {
            Bitmap picture = (Bitmap) pictures.getClass().getMethod(entry.getValue()).invoke(pictures);
            try (var file = new DataOutputStream(new FileOutputStream(entry.getKey()))) {
                for (int colour : picture.colours) file.writeInt(colour);
            }
        }
    }
}
