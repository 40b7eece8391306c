package org.tensorflow.lite;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;

/** Answers with what the real interpreter has put out for the same inputs, recorded in the folder "recorded". */
public class Interpreter implements AutoCloseable {
    public Interpreter(ByteBuffer model) {
        if (!model.isDirect() || model.order() != ByteOrder.nativeOrder() || !model.hasRemaining()) {
            throw new IllegalArgumentException("the model");
        }
    }

    public void runSignature(Map<String, Object> inputs, Map<String, Object> outputs, String signature) {
        String prefix = signature + ".input.";
        Set<String> expected = new HashSet<>();
        for (String file : Path.of("recorded").toFile().list()) {
            if (file.startsWith(prefix)) expected.add(file.substring(prefix.length()));
        }
        if (expected.isEmpty() || !expected.equals(inputs.keySet())) throw new IllegalArgumentException(signature);
        inputs.forEach((name, value) -> {
            if (!Arrays.equals(recorded(prefix + name).array(), bytes(value))) throw new IllegalArgumentException(name);
        });
        outputs.forEach((name, value) -> {
            ByteBuffer content = recorded(signature + ".output." + name);
            if (value instanceof FloatBuffer) ((FloatBuffer) value).put(content.asFloatBuffer());
            else ((ByteBuffer) value).put(content);
        });
    }

    @Override
    public void close() {}

    private static ByteBuffer recorded(String name) {
        try {
            return ByteBuffer.wrap(Files.readAllBytes(Path.of("recorded", name))).order(ByteOrder.nativeOrder());
        } catch (IOException error) {
            throw new IllegalArgumentException(name, error);
        }
    }

    private static byte[] bytes(Object value) {
        if (value instanceof int[]) {
            int[] numbers = (int[]) value;
            ByteBuffer buffer = ByteBuffer.allocate(4 * numbers.length).order(ByteOrder.nativeOrder());
            buffer.asIntBuffer().put(numbers);
            return buffer.array();
        }
        FloatBuffer numbers = (FloatBuffer) value;
        ByteBuffer buffer = ByteBuffer.allocate(4 * numbers.capacity()).order(ByteOrder.nativeOrder());
        buffer.asFloatBuffer().put(numbers);
        return buffer.array();
    }
}
