"""The import of TensorFlow and Keras leaves the process as it was."""

import gc

import pytest

from kvae.internal import tensorflow


@pytest.mark.parametrize("before", [True, False])
def test_the_search_for_garbage_goes_on_as_before_the_import(before):
    (gc.enable if before else gc.disable)()
    try:
        tensorflow._import()
        assert gc.isenabled() is before
    finally:
        gc.enable()
