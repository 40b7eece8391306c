"""Models and completions that several files of this folder share; no test changes them."""

import math

import numpy as np
import pytest
from completion_cases import CASES, SHORT, TOP, LinearCase, MovedCase, untrained
from oracles import Plane

from kvae import completion


@pytest.fixture(scope="session", params=CASES)
def case(request):
    return CASES[request.param]()


@pytest.fixture(scope="session")
def completed(case):
    return completion.complete(case.vae, case.x, case.mask)


@pytest.fixture(scope="session")
def vae():
    return untrained()


@pytest.fixture(scope="session")
def x(vae):
    """Six images that the model generated, `[6, 4, 4, 1]`, each 0 or 1."""
    return vae.generate(6, seed=3).numpy()


@pytest.fixture(scope="session")
def plane(vae, x):
    return Plane(vae, x)


@pytest.fixture(scope="session")
def inferred(vae, x):
    return completion.infer(vae, x, TOP)


@pytest.fixture(scope="session")
def linear():
    return LinearCase()


@pytest.fixture(scope="session")
def moved():
    return MovedCase()


@pytest.fixture(scope="session")
def moved_completed(moved):
    return completion.complete(moved.vae, moved.x, moved.observed, condition=moved.conditions)


@pytest.fixture(scope="session")
def short(vae, x):
    return completion.complete(vae, x, TOP, samples=50, **SHORT)


@pytest.fixture(scope="session")
def unknown(vae, x):
    return completion.complete(vae, np.where(TOP, x, math.nan), TOP, samples=50, **SHORT)
