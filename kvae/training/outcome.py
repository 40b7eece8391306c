"""What is said at the end of a training that has learned nothing: a collapse, or a loss that grew."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from kvae.internal.errors import KvaeWarning, stacklevel_of_user
from kvae.training.config import RunConfig

NEAR_ZERO = 0.1  # nats per image: with a smaller KL term, z tells almost nothing about the image
LARGE_VARIANCE = 0.1  # A pixel of a trained model differs from its mean by less than the root of this.


def warn(config: RunConfig, result: Mapping[str, Any], history: Mapping[str, np.ndarray]) -> None:
    """Warns if a finished training has learned nothing.

    Args:
        config: the configuration of the run.
        result: the evaluation of the test set, with `kl` in nats per image and `active_units`.
        history: the columns of history.csv.

    Warns:
        KvaeWarning: if no latent dimension is active, if the KL term is within 0.1 nats of 0, or if the loss is higher
            after the last epoch than after the first.
    """
    for text in (_collapse(config, result), _growth(config, history)):
        if text is not None:
            warnings.warn(text, KvaeWarning, stacklevel=stacklevel_of_user())


def _collapse(config: RunConfig, result: Mapping[str, Any]) -> str | None:
    active, kl = result["active_units"], result["kl"]
    if active > 0 and abs(kl) >= NEAR_ZERO:
        return None
    return (
        f"The model has collapsed: {active} of {config.model.latent_dim} latent dimensions are active, and the KL term "
        f"is {kl:.3f} nats per image. So z tells almost nothing about the image, and all samples look alike. What to "
        f"try: {'; '.join(_remedies(config))}."
    )


def _remedies(config: RunConfig) -> list[str]:
    """What to try against a collapse, the likeliest cause first."""
    model, training = config.model, config.training
    beta, found = model.objective.options.get("beta", 1.0), []
    variance = model.likelihood.options.get("variance", 1.0)
    fixed = model.likelihood.kind == "gaussian" and variance != "learned" and variance >= LARGE_VARIANCE
    if fixed or model.likelihood.kind == "squared_error":
        found.append(
            "--set model.likelihood=gaussian --set model.variance=learned, because with a large fixed variance the "
            "differences between images count little"
        )
    if model.likelihood.kind == "bernoulli":
        found.append(
            "for grey or colour images --set data.binarize=none --set model.likelihood=gaussian --set "
            "model.variance=learned"
        )
    is_number = isinstance(beta, float | int)
    if is_number and beta > 1:
        found.append(f"a lower model.beta than {beta:g}: --beta 1")
    if model.objective.kind == "elbo" and is_number and training.beta_warmup_epochs == 0 and training.epochs > 1:
        found.append(f"--set training.beta_warmup_epochs={-(-training.epochs // 2)}, so that the KL term counts later")
    longer = max(20, 2 * training.epochs)
    return [*found, f"more epochs than {training.epochs}, if the training had only begun: --epochs {longer}"]


def _growth(config: RunConfig, history: Mapping[str, np.ndarray]) -> str | None:
    losses = history["loss"].tolist() if "loss" in history else []
    # With a warm-up or another schedule of beta, and with another objective, the loss may grow in a good training.
    objective = config.model.objective
    scheduled = config.training.beta_warmup_epochs > 0 or isinstance(objective.options.get("beta"), dict)
    if len(losses) < 2 or objective.kind != "elbo" or scheduled:
        return None
    if not losses[-1] > losses[0]:
        return None
    rate = config.training.learning_rate
    return (
        f"The loss grew from {losses[0]:.2f} in epoch 1 to {losses[-1]:.2f} in epoch {len(losses)}: the training "
        f"diverges. What to try: a lower learning rate than {rate:g}: --learning-rate {rate / 10:g}."
    )
