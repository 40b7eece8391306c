"""`complete`: infer, predict, score; and `evaluate`: that score beside the baselines."""

from typing import Any, NamedTuple

import numpy as np

from kvae.completion.baselines import has_pixel_means, pixel_mean_baseline, zero_filled_baseline
from kvae.completion.masked import checked
from kvae.completion.prediction import predict
from kvae.completion.scoring import Score, quadrature_score, score
from kvae.completion.variational import Inferred, infer, infer_whole
from kvae.evaluation import Estimate
from kvae.internal.errors import UserError, check_whole
from kvae.model.vae import VAE

SAMPLES = 500  # of z an image


class Completion(NamedTuple):
    """Completions of a batch of images."""

    observed: np.ndarray  # [B, *image]  bool
    inferred: Inferred  # q(z | observed)
    whole: Inferred  # q(z | the whole image), for the scores alone
    means: np.ndarray  # [B, *image]  E[x | observed]; observed pixels as they were, as in the next two
    draw_means: np.ndarray  # [n, B, *image]  E[x|z] at n draws of z given the observed pixels
    draws: np.ndarray  # [n, B, *image]  draws of p(x|z) at the same z
    score: Score  # of the true missing pixels; NaN for images where they are not known

    def head(self, count: int) -> "Completion":
        """Those of the first `count` images."""
        return Completion(
            self.observed[:count],
            self.inferred.of(slice(count)),
            self.whole.of(slice(count)),
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
        x: `[B, *image]`. What stands in the missing pixels is used for the score alone; NaN where it is not known.
        observed: a mask, True where a pixel is observed: `[H, W]`, `[H, W, C]`, `[B, H, W, C]`, or a name that
            `kvae.completion.masks.named` knows, such as `"top"`.
        draws: completions an image.
        samples: of z an image, for the means and again for the score.
        seed: of everything random; what an image gets is a function of (seed, its place in x) alone.
        condition: `[B, ...]`, of a model that has one.
        inferred: q(z | observed) of an earlier `infer` on the same images; inferred here by default.
        **options: of `infer`.

    Raises:
        UserError: a mask that does not fit, observes nothing or everything, or another argument that cannot be.
    """
    images = checked(vae, x, observed, seed, condition)
    check_whole("draws", draws)
    check_whole("samples", samples, least=3)
    if inferred is None:
        inferred = infer(vae, images.seen, images.observed, seed=seed, condition=images.condition, **options)
    elif options:
        raise UserError(f"Expected either inferred= or options of infer. Received both: {', '.join(options)}.")
    elif np.shape(inferred.mean) != (len(images.x), vae.latent_dim):
        raise UserError(
            f"Expected inferred= of these images, mean {(len(images.x), vae.latent_dim)}. "
            f"Received {np.shape(inferred.mean)}."
        )
    whole = infer_whole(vae, images, seed) if images.known.any() else inferred
    predicted = predict(vae, images, inferred, draws, samples, seed)
    scored = score(vae, images, inferred, whole, samples, seed)
    return Completion(images.observed, inferred, whole, *predicted, scored)


def evaluate(
    vae: VAE,
    x: Any,
    found: Completion,
    *,
    pixel_mean: Any,
    training_images: int,
    samples: int = SAMPLES,
    seed: int = 0,
    exact: bool = False,
    condition: Any = None,
) -> dict[str, Any]:
    """The score of completions beside that of both baselines, JSON-ready, in nats per image.

    Args:
        vae: that made them.
        x: the whole images, `[B, *image]`.
        found: what `complete` returned for them.
        pixel_mean: of the training images, `[*image]`.
        training_images: how many there were.
        samples: of the baseline that draws z.
        seed: likewise.
        exact: add the value by quadrature, for 2 latent dimensions.
        condition: `[B, ...]`, of a model that has one.

    Returns:
        `kvae`, `pixel_means` where the likelihood is told by means, `zero_filled` and, where asked for, `quadrature`:
        each with `mean`, its
        `standard_error` over the images, and `per_image`. Of `kvae` also the mean `monte_carlo_standard_error` of an
        image and its median `effective_samples`; of `quadrature` the greatest `error`. `converged`: how many.

    Raises:
        UserError: a missing pixel is not known.
    """
    if np.isnan(found.score.log_density).any():
        raise UserError("Expected the true values of all missing pixels to score by. Received NaN.")
    values = {"kvae": found.score.log_density}
    if has_pixel_means(vae):
        values["pixel_means"] = pixel_mean_baseline(vae, x, found.observed, pixel_mean, training_images)
    values["zero_filled"] = zero_filled_baseline(
        vae, x, found.observed, whole=found.whole, samples=samples, seed=seed, condition=condition
    )
    errors = np.zeros(1)
    if exact:
        values["quadrature"], errors = quadrature_score(vae, x, found.observed, condition)
    result: dict[str, Any] = {}
    for name, per_image in values.items():
        estimate = Estimate(np.asarray(per_image, np.float64))
        result[name] = {
            "mean": estimate.mean,
            "standard_error": estimate.standard_error,
            "per_image": estimate.per_example.tolist(),
        }
    result["kvae"]["monte_carlo_standard_error"] = float(found.score.standard_error.mean())
    result["kvae"]["effective_samples"] = float(np.median(found.score.effective_samples))
    if exact:
        result["quadrature"]["error"] = float(errors.max())
    result["converged"] = int(found.inferred.converged.sum())
    return result
