"""The page in a real browser: headless Chromium, which opens the file as a person would."""

import numpy as np
import pytest
from browsers import CHROMIUM, CLASSES
from web_pages import MODELS, write_page


@pytest.fixture(scope="module")
def browser():
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The page of each model, written when it is first asked for; the plane has encoded images of two classes."""
    made = {}

    def file(name, variant="web_int8"):
        if (name, variant) not in made:
            vae = MODELS[name]()
            means = np.random.default_rng(0).normal(size=(300, vae.latent_dim))
            about = {"means": means, "labels": (means[:, 0] > 0).astype(int), "label_names": ("<b>left</b>", "right")}
            about |= {"kl_per_dimension": [0.5, 2.0, 1.0]} if vae.latent_dim == 3 else {}
            about |= {} if vae.condition_shape is None else {"class_names": CLASSES}
            folder = tmp_path_factory.mktemp(name)
            made[name, variant] = write_page(vae, folder, variant, name="<i>model</i>", **about)
        return made[name, variant]

    return file


@pytest.fixture
def visit(browser):
    """Opens a page and returns it when it is ready. Whatever the browser complains about fails the test."""
    contexts, complaints, requests = [], [], []

    def visit(path, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (event) => console.error(event.violatedDirective))"
        )
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-ready]")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url.split(":")[0] for url in requests} <= {"file", "blob"}  # the page itself, its worker and its downloads
