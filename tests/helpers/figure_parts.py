"""What a figure of matplotlib shows: its pictures, the images in them, and its texts."""

import numpy as np


def picture_on(axes) -> np.ndarray:
    """The picture that lies on the axes, `[H, W]` or `[H, W, C]`."""
    return np.asarray(axes.get_images()[0].get_array())


def shown(figure, place: int = 0) -> np.ndarray:
    """The picture on the axes number `place` of a figure, `[H, W, C]`."""
    picture = picture_on(figure.axes[place])
    return picture[..., None] if picture.ndim == 2 else picture


def stacked(figure, count: int, height: int) -> list[np.ndarray]:
    """The sheets of a figure, `height` pixels each, that lie one above the other under their titles: `[H, W, C]`."""
    return [part[-height:] for part in np.split(shown(figure), count)]


def cells(picture: np.ndarray, shape: tuple[int, ...], gap: int = 2) -> np.ndarray:
    """The images of this shape in a sheet with gaps of `gap` pixels, as `[rows, columns, H, W, C]`."""
    height, width = shape[:2]
    picture = picture.reshape(*picture.shape[:2], -1)
    rows, columns = (picture.shape[0] + gap) // (height + gap), (picture.shape[1] + gap) // (width + gap)
    return np.array(
        [
            [picture[row * (height + gap) :, column * (width + gap) :][:height, :width] for column in range(columns)]
            for row in range(rows)
        ]
    )


def texts(figure) -> list[str]:
    """The texts on the first axes of a figure."""
    return [text.get_text() for text in figure.axes[0].texts]
