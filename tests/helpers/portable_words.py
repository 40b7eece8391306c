"""The hash behind the portable numbers, written a second time in plain Python, and extreme seeds."""

GOLDEN, MASK = 0x9E3779B9, 2**32 - 1
EXTREME = [0, 1, -1, 2**31 - 1, -(2**31)]  # the least and the greatest seed among them


def mixed(word):
    """One round of the hash."""
    word ^= word >> 16
    word = word * 0x7FEB352D & MASK
    word ^= word >> 15
    word = word * 0x846CA68B & MASK
    return word ^ word >> 16


def words_of(seed, stream, count):
    """The hash with whole numbers of Python, one word at a time."""
    keys = [mixed((seed & MASK) ^ ((2 * stream + number) * GOLDEN & MASK)) for number in (1, 2)]
    return [mixed(mixed((place * GOLDEN & MASK) ^ keys[0]) ^ keys[1]) for place in range(count)]
