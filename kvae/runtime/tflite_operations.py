"""Checks the operations of a .tflite file: the inputs and the options that each of them takes.

LiteRT would crash at an operation with too few inputs, or with options of another one. The numbers are those of
`tensorflow/compiler/mlir/lite/schema/schema.fbs`, where they never change.
"""

import numpy as np

from kvae.runtime.flatbuffer import Tables, require

# The operations that decoders usually have, by name. Others may occur, and their inputs and options are not checked.
# By name: the number of the operation, that of the type of its options, or 0 if it has none, and the fewest inputs.
OPERATIONS = {
    "ADD": (0, 11, 2), "AVERAGE_POOL_2D": (1, 5, 1), "CONCATENATION": (2, 10, 1), "CONV_2D": (3, 1, 2),
    "DEPTHWISE_CONV_2D": (4, 2, 2), "DEPTH_TO_SPACE": (5, 94, 1), "DEQUANTIZE": (6, 38, 1),
    "EMBEDDING_LOOKUP": (7, 0, 2), "FLOOR": (8, 0, 1), "FULLY_CONNECTED": (9, 8, 2), "L2_NORMALIZATION": (11, 12, 1),
    "LOCAL_RESPONSE_NORMALIZATION": (13, 13, 1), "LOGISTIC": (14, 0, 1), "MAX_POOL_2D": (17, 5, 1), "MUL": (18, 21, 2),
    "RELU": (19, 0, 1), "RELU_N1_TO_1": (20, 0, 1), "RELU6": (21, 0, 1), "RESHAPE": (22, 17, 1),
    "RESIZE_BILINEAR": (23, 15, 2), "SOFTMAX": (25, 9, 1), "SPACE_TO_DEPTH": (26, 19, 1), "TANH": (28, 0, 1),
    "PAD": (34, 22, 2), "GATHER": (36, 23, 2), "BATCH_TO_SPACE_ND": (37, 24, 3), "SPACE_TO_BATCH_ND": (38, 25, 3),
    "TRANSPOSE": (39, 26, 2), "MEAN": (40, 27, 2), "SUB": (41, 28, 2), "DIV": (42, 29, 2), "SQUEEZE": (43, 30, 1),
    "STRIDED_SLICE": (45, 32, 4), "EXP": (47, 33, 1), "TOPK_V2": (48, 34, 2), "SPLIT": (49, 35, 2),
    "LOG_SOFTMAX": (50, 36, 1), "CAST": (53, 37, 1), "PRELU": (54, 0, 2), "MAXIMUM": (55, 39, 2),
    "ARG_MAX": (56, 40, 2), "MINIMUM": (57, 39, 2), "LESS": (58, 41, 2), "NEG": (59, 42, 1), "PADV2": (60, 43, 3),
    "GREATER": (61, 44, 2), "GREATER_EQUAL": (62, 45, 2), "LESS_EQUAL": (63, 46, 2), "SELECT": (64, 47, 3),
    "SLICE": (65, 48, 3), "SIN": (66, 0, 1), "TRANSPOSE_CONV": (67, 49, 3), "TILE": (69, 51, 2),
    "EXPAND_DIMS": (70, 52, 2), "EQUAL": (71, 53, 2), "NOT_EQUAL": (72, 54, 2), "LOG": (73, 0, 1), "SUM": (74, 27, 2),
    "SQRT": (75, 0, 1), "RSQRT": (76, 0, 1), "SHAPE": (77, 55, 1), "POW": (78, 56, 2), "ARG_MIN": (79, 57, 2),
    "FAKE_QUANT": (80, 58, 1), "REDUCE_PROD": (81, 27, 2), "REDUCE_MAX": (82, 27, 2), "PACK": (83, 59, 1),
    "LOGICAL_OR": (84, 60, 2), "ONE_HOT": (85, 61, 4), "LOGICAL_AND": (86, 62, 2), "LOGICAL_NOT": (87, 63, 1),
    "UNPACK": (88, 64, 1), "REDUCE_MIN": (89, 27, 2), "FLOOR_DIV": (90, 65, 2), "REDUCE_ANY": (91, 27, 2),
    "SQUARE": (92, 66, 1), "ZEROS_LIKE": (93, 67, 1), "FILL": (94, 68, 2), "FLOOR_MOD": (95, 72, 2),
    "RANGE": (96, 73, 3), "RESIZE_NEAREST_NEIGHBOR": (97, 74, 2), "LEAKY_RELU": (98, 75, 1),
    "SQUARED_DIFFERENCE": (99, 76, 2), "MIRROR_PAD": (100, 77, 2), "ABS": (101, 78, 1), "SPLIT_V": (102, 79, 3),
    "CEIL": (104, 0, 1), "REVERSE_V2": (105, 81, 2), "ADD_N": (106, 82, 1), "GATHER_ND": (107, 83, 2),
    "COS": (108, 84, 1), "RANK": (110, 86, 1), "ELU": (111, 0, 1), "QUANTIZE": (114, 89, 1), "ROUND": (116, 0, 1),
    "HARD_SWISH": (117, 91, 1), "SCATTER_ND": (122, 97, 3), "SELECT_V2": (123, 98, 3), "BATCH_MATMUL": (126, 101, 2),
    "CUMSUM": (128, 102, 2), "BROADCAST_TO": (130, 104, 2), "CONV_3D": (132, 106, 2), "REDUCE_ALL": (140, 27, 2),
    "CONV_3D_TRANSPOSE": (141, 106, 3), "BROADCAST_ARGS": (145, 0, 2), "BUCKETIZE": (147, 115, 1),
    "GELU": (150, 116, 1), "DYNAMIC_UPDATE_SLICE": (151, 117, 3), "RELU_0_TO_1": (152, 0, 1), "ATAN2": (156, 122, 2),
    "SIGN": (158, 123, 1), "BITCAST": (159, 124, 1), "BITWISE_XOR": (160, 125, 2), "RIGHT_SHIFT": (161, 126, 2),
}  # fmt: skip

# Operations whose bias may be left out, as an input with the number -1: FULLY_CONNECTED and convolutions.
WITH_BIAS = (3, 4, 9, 67, 132, 141)
# For the options with vectors, by the number of their type, the fields that are vectors and the type of the entries.
VECTORS = {
    3: {1: "<i4", 2: "<i4"},  # ConcatEmbeddingsOptions
    8: {5: "u1"},  # FullyConnectedOptions
    17: {0: "<i4"},  # ReshapeOptions
    30: {0: "<i4"},  # SqueezeOptions
    115: {0: "<f4"},  # BucketizeOptions
}
VARIABLES, LAST_OPTIONS = 111, 126  # types of options: those of a variable, which has texts, and the last one
LAST_CODE = 255  # larger than the number of any operation
# Fields of Operator; the last ones are options outside of the tables, and those of StableHLO.
CODE, INPUTS, OUTPUTS, OPTIONS_TYPE, OPTIONS, CUSTOM_OPTIONS, CUSTOM_FORMAT, FLAGS, INTERMEDIATES = range(9)
ELSEWHERE = (9, 10, 11, 12)


def check(operators: Tables, codes: Tables) -> None:
    """Checks the options of operations, and the number of their inputs and outputs.

    Args:
        operators: the operations.
        codes: the kinds of operations, to which they refer.

    Raises:
        StructureError: if an operation has options of another one or outside of the file, or too few inputs or outputs.
    """
    codes.check_texts(1)
    codes.numbers(2, "<i4")
    kinds = np.maximum(codes.numbers(0, "i1"), codes.numbers(3, "<i4"))  # files of old versions have the first alone
    chosen = operators.numbers(CODE, "<u4")
    require(chosen < len(codes), "an operation has an unknown kind")
    require((kinds >= 0) & (kinds <= LAST_CODE), "it has an unknown operation")
    known = np.full((LAST_CODE + 1, 2), (-1, 0))  # the type of the options, or -1 if it is not known; the fewest inputs
    for number, kind, fewest in OPERATIONS.values():
        known[number] = kind, fewest
    expected, least = known[kinds[chosen]].T
    _check_options(operators, expected)
    inputs, owners = operators.vectors(INPUTS, "<i4")
    counts = operators.lengths(INPUTS, "<i4")
    positions = np.arange(len(inputs)) - (np.cumsum(counts) - counts)[owners]
    absent = inputs == -1
    optional = (least == 0)[owners] | np.isin(kinds[chosen], WITH_BIAS)[owners] & (positions >= least[owners])
    require(counts >= least, "an operation has too few inputs")
    require(~absent | optional, "an operation lacks an input")
    require((least == 0) | (operators.lengths(OUTPUTS, "<i4") > 0), "an operation has no output")
    flags = operators.lengths(FLAGS)
    require((flags == 0) | (flags == counts), "an operation does not have one flag per input")


def _check_options(operators: Tables, expected: np.ndarray) -> None:
    """Checks the options of operations, where `expected` are their types, `[n]`, or -1 if they are not known."""
    types = operators.numbers(OPTIONS_TYPE, "u1")
    require(types <= LAST_OPTIONS, "an operation has unknown options")
    require((types != VARIABLES) & ~np.bool(operators.has(*ELSEWHERE)), "an operation is not one of a decoder")
    require((types == 0) | (expected == -1) | (types == expected), "an operation has options of another one")
    options, owners = operators.child(OPTIONS)
    require(types[owners] > 0, "an operation has options of no type")
    for kind, fields in VECTORS.items():
        some = options.select(types[owners] == kind)
        for slot, entry in fields.items():
            some.lengths(slot, entry)
    operators.lengths(CUSTOM_OPTIONS), operators.numbers(CUSTOM_FORMAT, "i1")
