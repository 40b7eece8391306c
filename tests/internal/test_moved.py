"""Import paths of kvae 0.1 and 0.2 work for one more version, with a warning that names the new path."""

import importlib
import sys

import pytest

import kvae
from kvae.internal.old_import_paths import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_the_names_of_an_old_module_are_those_of_the_new_one(old):
    new = importlib.import_module(f"kvae.{MOVED[old]}")
    name = next(name for name, value in vars(new).items() if getattr(value, "__module__", "").startswith("kvae."))
    with pytest.warns(DeprecationWarning, match=f"use kvae.{MOVED[old]}") as caught:
        assert getattr(importlib.import_module(f"kvae.{old}"), name) is getattr(new, name)
    assert caught[0].filename == __file__


def test_the_statements_of_old_code_work():
    with pytest.warns(DeprecationWarning, match=r"use kvae\.model\.vae"):
        from kvae.vae import VAE
    with pytest.warns(DeprecationWarning, match=r"use kvae\.completion\.completions"):
        from kvae.inference.completion import complete
    from kvae import inference

    with pytest.warns(DeprecationWarning, match=r"use kvae\.completion\."):
        assert inference.complete is complete
    import kvae.figures

    with pytest.warns(DeprecationWarning, match=r"use kvae\.plotting\.figures"):
        assert kvae.figures.KINDS
    assert VAE is kvae.VAE
    assert complete is kvae.completion.complete


@pytest.mark.parametrize("name", ["likelihoods", "networks", "objectives", "posteriors", "priors"])
@pytest.mark.filterwarnings("error::DeprecationWarning")
def test_public_names_warn_of_nothing(name):
    assert getattr(kvae, name).__name__ == f"kvae.model.{name}"


def test_a_name_that_the_new_module_lacks_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = importlib.import_module("kvae.vae").no_such_name


def test_looking_at_all_modules_warns_of_nothing(recwarn):
    for module in list(sys.modules.values()):  # as `inspect` and debuggers do
        assert hasattr(module, "__wrapped__") in (False, True)
    assert not [warning for warning in recwarn if "kvae" in str(warning.message)]
