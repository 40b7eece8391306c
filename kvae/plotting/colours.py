"""The colours and markers of all pictures. Every colour has a contrast of at least 3:1 on white, as WCAG 2.1 asks."""

from matplotlib.colors import to_rgb

# Ten colours that differ for readers with normal sight, deuteranopia and protanopia, in an order that gives digits that
# look alike (3, 5 and 8; 4, 7 and 9) very different colours. The markers distinguish the classes in grey print too.
COLOURS = (
    "#332288", "#E6550D", "#117733", "#AA4499", "#6699CC", "#000000", "#5AA02C", "#882255", "#CC6677", "#C2487D",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
UNLABELLED = "#595959"  # points without a label, if others have one
MISSING = "#4477AA"  # pixels that are not observed
WARNING = "#B22222"  # texts that warn


def luminance(colour: str) -> float:
    """The relative luminance of a colour, 0 for black and 1 for white; WCAG 2.1, section 3."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(colour: str, other: str = "white") -> float:
    """The contrast ratio of two colours, 1 for equal ones and 21 for black and white; WCAG 2.1, section 3."""
    low, high = sorted((luminance(colour), luminance(other)))
    return (high + 0.05) / (low + 0.05)
