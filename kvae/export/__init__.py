"""Export of trained models to SavedModel, LiteRT, ONNX and a web page, as a bundle with a model card.

`formats.py` is the table of the formats, each of which is one file. `bundles.py` writes a bundle, `parity.py` compares
each decoder with the Keras model, and `verification.py` checks the claims of a run or a bundle.
"""

from kvae.export.bundles import bundle, bundle_of_run, check_options, data_of, test_images
from kvae.export.endpoints import DECODER, ENDPOINTS
from kvae.export.formats import DEFAULT_FORMATS, FORMATS, Format
from kvae.export.litert import DEFAULT_VARIANTS, convert, operators
from kvae.export.savedmodel import saved_model
from kvae.export.verification import Check, verify
from kvae.runtime.savedmodel import SavedModelDecoder

TOLERANCES = {variant: dict(value) for each in FORMATS.values() for variant, value in each.tolerances.items()}

__all__ = [
    "DECODER",
    "DEFAULT_FORMATS",
    "DEFAULT_VARIANTS",
    "ENDPOINTS",
    "FORMATS",
    "TOLERANCES",
    "Check",
    "Format",
    "SavedModelDecoder",
    "bundle",
    "bundle_of_run",
    "check_options",
    "convert",
    "data_of",
    "operators",
    "saved_model",
    "test_images",
    "verify",
]
