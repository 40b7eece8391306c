"""`complete` infers, predicts and scores; `evaluate` compares the score with the baselines."""

from typing import Any, NamedTuple

import numpy as np

from kvae.completion.baselines import has_pixel_means, pixel_mean_baseline, zero_filled_baseline
from kvae.completion.masked_images import BATCH, check_images
from kvae.completion.prediction import predict
from kvae.completion.scoring import LEAST_EFFECTIVE, Score, quadrature_score, score
from kvae.completion.variational_inference import Inferred, infer, infer_whole
from kvae.evaluation import Estimate
from kvae.internal import memory
from kvae.internal.errors import UserError, check_whole
from kvae.model import sampling
from kvae.model.vae import VAE

SAMPLES = 500  # the default number of draws of z per image


class Completion(NamedTuple):
    """Completions of a batch of images. In `means`, `draw_means` and `draws` the observed pixels keep their values."""

    observed: np.ndarray  # [B, *image]  bool
    inferred: Inferred  # q(z | observed)
    whole: Inferred  # q(z | the whole image), which only the scores use
    means: np.ndarray  # [B, *image]  E[x | observed]
    draw_means: np.ndarray  # [n, B, *image]  E[x|z] at n draws of z given the observed pixels
    draws: np.ndarray  # [n, B, *image]  draws of p(x|z) at the same z
    score: Score  # of the true missing pixels; NaN for an image whose missing pixels are not known

    def head(self, count: int) -> "Completion":
        """The completions of the first `count` images."""
        return Completion(
            self.observed[:count],
            self.inferred.select(slice(count)),
            self.whole.select(slice(count)),
            self.means[:count],
            self.draw_means[:, :count],
            self.draws[:, :count],
            self.score.head(count),
        )


def complete(
    vae: VAE,
    x: Any,
    observed: Any,
    *,
    draws: int = 3,
    samples: int = SAMPLES,
    seed: int = 0,
    condition: Any = None,
    inferred: Inferred | None = None,
    **options: Any,
) -> Completion:
    """Infers q(z | observed) and predicts the missing pixels: p(missing|observed) = E[p(missing|z)] over p(z|observed).

    Args:
        vae: a built model.
        x: images, `[B, *image]`. The values of the missing pixels are used only for the score; NaN stands for a value
            that is not known.
        observed: a mask, True for every observed pixel, `[H, W]`, `[B, H, W]`, `[H, W, C]` or `[B, H, W, C]`; or a name
            that `kvae.completion.masks.named` accepts, such as `"top"`.
        draws: the number of completions per image, n.
        samples: the number of draws of z per image for the means, and again for the score; at least 3.
        seed: the seed of all random numbers. Those of an image depend only on the seed and on its index in x.
        condition: conditions, `[B, ...]`, for a model that takes one.
        inferred: q(z | observed), as `infer` returned it for the same images. By default it is inferred here.
        **options: keyword arguments of `infer`.

    Raises:
        UserError: if the mask does not fit the images, if nothing or everything of an image is observed, or if another
            argument is not valid.
    """
    images = check_images(vae, x, observed, seed, condition)
    check_whole("draws", draws)
    check_whole("samples", samples, least=3)
    batch = min(BATCH, len(images.x), sampling.images_at_once(vae))
    # z and its weight for each draw of a batch of images, in pieces and as a whole
    memory.check(
        2 * samples * batch * (memory.NUMBER * vae.latent_dim + 8),
        f"{samples:,} draws of z per image",
        "Choose fewer samples.",
    )
    if inferred is None:
        inferred = infer(vae, images.zero_filled, images.observed, seed=seed, condition=images.condition, **options)
    elif options:
        raise UserError(f"Expected either inferred= or options of infer. Received both: {', '.join(options)}.")
    elif np.shape(inferred.mean) != (len(images.x), vae.latent_dim):
        raise UserError(
            f"Expected inferred= of these images, with a mean of shape {(len(images.x), vae.latent_dim)}. "
            f"Received {np.shape(inferred.mean)}."
        )
    whole = infer_whole(vae, images, seed) if images.known.any() else inferred
    predicted = predict(vae, images, inferred, draws, samples, seed)
    scored = score(vae, images, inferred, whole, samples, seed)
    return Completion(images.observed, inferred, whole, *predicted, scored)


def evaluate(
    vae: VAE,
    x: Any,
    completion: Completion,
    *,
    pixel_mean: Any,
    training_images: int,
    samples: int = SAMPLES,
    seed: int = 0,
    exact: bool = False,
    condition: Any = None,
) -> dict[str, Any]:
    """Compares the score of completions with those of both baselines. All scores are in nats per image.

    Args:
        vae: the model that made the completions.
        x: the whole images, `[B, *image]`.
        completion: what `complete` returned for these images.
        pixel_mean: the mean of the training images, `[*image]`.
        training_images: the number of training images.
        samples: the number of draws of z per image for the zero-filled baseline; at least 3.
        seed: the seed of these draws.
        exact: whether to add the score by quadrature, for models with 1 to 3 latent dimensions.
        condition: conditions, `[B, ...]`, for a model that takes one.

    Returns:
        A dictionary that can be written as JSON. Its entries `kvae`, `pixel_means` (if means determine the
        likelihood), `zero_filled` and `quadrature` (if `exact`) each have the `mean` over the images, its
        `standard_error`, and the score `per_image`. `kvae` also has `monte_carlo_standard_error`, the mean over the
        images, `effective_samples`, the median, and `unreliable`, the number of images with fewer than 5 of these;
        `quadrature` also has `error`, the largest, or None if that of an image is not known. `converged` is the number
        of images whose inference has converged.

    Raises:
        UserError: if the value of a missing pixel is not known, or if a baseline or the quadrature does not accept
            an argument.
    """
    if np.isnan(completion.score.log_density).any():
        raise UserError("Expected the true values of all missing pixels, to compute a score. Received NaN.")
    values = {"kvae": completion.score.log_density}
    if has_pixel_means(vae):
        values["pixel_means"] = pixel_mean_baseline(vae, x, completion.observed, pixel_mean, training_images, condition)
    values["zero_filled"] = zero_filled_baseline(
        vae, x, completion.observed, whole=completion.whole, samples=samples, seed=seed, condition=condition
    )
    errors = np.zeros(1)
    if exact:
        values["quadrature"], errors = quadrature_score(vae, x, completion.observed, condition)
    result: dict[str, Any] = {}
    for name, per_image in values.items():
        estimate = Estimate(np.asarray(per_image, np.float64))
        result[name] = {
            "mean": estimate.mean,
            "standard_error": estimate.standard_error,
            "per_image": estimate.per_example.tolist(),
        }
    result["kvae"]["monte_carlo_standard_error"] = float(completion.score.standard_error.mean())
    result["kvae"]["effective_samples"] = float(np.median(completion.score.effective_samples))
    result["kvae"]["unreliable"] = int((completion.score.effective_samples < LEAST_EFFECTIVE).sum())
    if exact:
        # It is infinite where an integrand does not vanish at the edge of the widest box; JSON has no such number.
        result["quadrature"]["error"] = float(errors.max()) if np.isfinite(errors).all() else None
    result["converged"] = int(completion.inferred.converged.sum())
    return result
