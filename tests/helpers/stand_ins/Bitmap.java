package android.graphics;

public class Bitmap {
    public enum Config { ARGB_8888 }

    public int[] colours;

    public static Bitmap createBitmap(int[] colours, int width, int height, Config config) {
        if (colours.length != width * height) throw new ArrayIndexOutOfBoundsException();
        Bitmap bitmap = new Bitmap();
        bitmap.colours = colours;
        return bitmap;
    }
}
