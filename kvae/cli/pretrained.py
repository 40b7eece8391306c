"""`kvae pretrained`: the models that kvae brings along. It imports no TensorFlow."""

import json
from typing import Any

from kvae.cli.output import say
from kvae.cli.shared import json_option
from kvae.cli.usage import command
from kvae.internal import quantities
from kvae.internal.errors import UserError


@command(examples=("kvae pretrained", "kvae pretrained --json"))
@json_option
def pretrained(as_json: bool) -> None:
    """List the pretrained models and their files.

    `kvae sample NAME` and kvae.load("NAME") open them. The ELBO is that of the test images, in nats per image, with its
    standard error. A higher ELBO is better.
    """
    from kvae.runtime import pretrained as models

    listed = [models.describe(name) for name in models.folders()]
    if as_json:
        print(json.dumps({"pretrained": listed}))
        return
    if not listed:
        raise UserError(f"Expected pretrained models in {models.PACKAGE}. There are none. Install kvae again.")
    width = max(len(each["name"]) for each in listed)
    for each in listed:
        say(f"{each['name']:{width}}  {each['description']}")
        say(*(f"{'':{width}}  {line}" for line in _facts(each)))
    first = listed[0]["name"]
    say(f'To draw images: kvae sample {first}    in Python: kvae.load("{first}").sample([0, 1])')


def _facts(model: dict[str, Any]) -> tuple[str, ...]:
    """The ELBO and the sizes, the protocol of the ELBO, and the folder."""
    protocol = model["protocol"]
    sizes = ", ".join(f"{name} {quantities.size(each['bytes'])}" for name, each in model["variants"].items())
    return (
        f"test ELBO {model['elbo']:.2f} ± {model['elbo_standard_error']:.2f} nats per image; {sizes}",
        f"protocol: {protocol['dataset']}, {protocol['examples']:,} test images, {protocol['binarization']} "
        f"binarization ({protocol['evaluation_binarization']}), "
        f"{protocol['elbo_draws']} draws of z (seed {protocol['seed']})",
        f"folder: {model['folder']}",
        *([f"page, for a browser: {model['page']}"] if model["page"] else []),
    )


COMMANDS = (pretrained,)
