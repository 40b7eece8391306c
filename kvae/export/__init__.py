"""Trained models for elsewhere: SavedModel, LiteRT decoders, and the bundle of both with its parity report."""

from kvae.export.bundles import DEFAULT_FORMATS, FORMATS, bundle, bundle_of_run, check_options, test_images
from kvae.export.endpoints import DECODER, ENDPOINTS
from kvae.export.litert import DEFAULT_VARIANTS, convert, operators
from kvae.export.parity import TOLERANCES
from kvae.export.savedmodel import SavedModelDecoder, saved_model
from kvae.export.verification import Check, verify

__all__ = [
    "DECODER",
    "DEFAULT_FORMATS",
    "DEFAULT_VARIANTS",
    "ENDPOINTS",
    "FORMATS",
    "TOLERANCES",
    "Check",
    "SavedModelDecoder",
    "bundle",
    "bundle_of_run",
    "check_options",
    "convert",
    "operators",
    "saved_model",
    "test_images",
    "verify",
]
