"""Pages in headless Chromium: what they show, and what their worker answers.

Tests of them are skipped where there is no playwright or no Chromium; `.ci/run` installs both.
"""

import base64
import importlib.util
import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image

CHROMIUM = os.environ.get("KVAE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
CLASSES = ("<b>left</b>", "right", "above")
IN_CHROMIUM = [
    pytest.mark.slow,  # the start of a browser, and some thousand decodes in it
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]


def asked(page, count, seed):
    """z and draws of seeds, as the worker of the page makes them."""
    result = page.evaluate(
        """async ([count, seed]) => {
          const samples = [];
          await ask("sampleAll", { count, seed }, ({ parts }) => samples.push(...parts));
          const joined = (name) => new Blob(samples.map((each) => each[name]));
          const base64 = async (blob) => {
            const reader = new FileReader();
            return new Promise((resolve) => {
              reader.onload = () => resolve(reader.result.split(",")[1]);
              reader.readAsDataURL(blob);
            });
          };
          return [await base64(joined("z")), await base64(joined("draw"))];
        }""",
        [count, seed],
    )
    z, draws = (base64.b64decode(text) for text in result)
    return np.frombuffer(z, "<f4").reshape(count, -1), np.frombuffer(draws, np.uint8).reshape(count, -1)


def pixels(file):
    """The content of a picture file, `[H, W, 3]`."""
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def picture(page, selector):
    """The bytes of a canvas, `[H, W, 3]`."""
    url = page.evaluate("(selector) => document.querySelector(selector).toDataURL()", selector)
    return pixels(io.BytesIO(base64.b64decode(url.split(",")[1])))


def box_of(page, selector):
    """Where an element is on the screen, to which it is scrolled."""
    page.locator(selector).scroll_into_view_if_needed()
    return page.locator(selector).bounding_box()


def chosen(page):
    """The chosen numbers."""
    return np.array(page.evaluate("z"))


def until(page, condition):
    """Waits until a condition in JavaScript holds. (The policy of the page does not permit `wait_for_function`.)"""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"{condition} did not become true")


def completed(page):
    """What the page found for the picture and the mask that were set last."""
    page.wait_for_selector("body[data-completed]")
    assert page.get_attribute("#complete-section", "aria-busy") == "false"
    assert not page.is_visible("#complete-progress")
    return page.evaluate("JSON.parse(document.body.dataset.completed)")
