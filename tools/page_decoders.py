"""The web page of a bundle, decoded by its own JavaScript: in Node, and in headless Chromium."""

import base64
import importlib.util
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from node import NODE, javascript

from kvae.runtime.decoder import Decoder
from kvae.runtime.web import WebDecoder

CHROMIUM = os.environ.get("KVAE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
Evaluate = Callable[[str, Any], Any]  # (a function in JavaScript, its argument) -> what it returns

JOINED = """
const joined = (arrays) => {
  const size = arrays[0].byteLength, bytes = new Uint8Array(arrays.length * size);
  arrays.forEach((array, i) => bytes.set(new Uint8Array(array.buffer, array.byteOffset, size), i * size));
  let text = "";
  for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
  return btoa(text);
};
"""
FUNCTIONS = {  # `model`, `decode` and `sample` are those of kvae/web/runtime.js
    "decode": f"""(points) => {{ {JOINED}
      const all = points.map((z) => decode(model, z));
      return {{ means: joined(all.map((each) => each.means)), logits: joined(all.map((each) => each.parameters)) }};
    }}""",
    "sample": f"""(seeds) => {{ {JOINED}
      const all = seeds.map((seed) => sample(model, seed));
      const part = (name) => joined(all.map((each) => each[name]));
      return {{ images: part("draw"), means: part("means"), z: part("z") }};
    }}""",
}
GROUP = 4  # decodes that are timed at once, because the clock of a browser is coarse
LATENCY = f"""(groups) => {{
  const points = Array.from(seedsOf({GROUP}, 0), (seed) => normals(seed, LATENT, model.latent_dim, model.quantiles));
  const times = Array.from({{ length: groups }}, () => {{
    const start = performance.now();
    for (const z of points) decode(model, z);
    return (performance.now() - start) / points.length;
  }});
  return times.sort((a, b) => a - b)[groups >> 1];
}}"""
GROUPS = 75
FIRST_IMAGE = """
const put = CanvasRenderingContext2D.prototype.putImageData;
CanvasRenderingContext2D.prototype.putImageData = function (...values) {
  put.apply(this, values);
  window.firstImage ??= performance.now(); // milliseconds since the navigation
};
"""


class PageDecoder(Decoder):
    """The decoder of a page in its own JavaScript.

    Args:
        path: the page.
        evaluate: what calls a function in JavaScript where the page's model is open.
    """

    chunk = 1000

    def __init__(self, path: Path, evaluate: Evaluate) -> None:
        super().__init__()
        self.path, self._evaluate = path, evaluate
        read = WebDecoder(path)
        self.latent_dim, self.image_shape = read.latent_dim, read.image_shape

    def run(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        (values,) = inputs.values()
        texts = self._evaluate(FUNCTIONS[name], values.tolist())
        arrays = {key: base64.b64decode(text) for key, text in texts.items()}
        if name == "decode":
            return {key: self._images(content, "<f4") for key, content in arrays.items()}
        return {
            "images": self._images(arrays["images"], np.uint8),
            "means": self._images(arrays["means"], np.uint8) / np.float32(255),  # as the page shows them
            "z": np.frombuffer(arrays["z"], "<f4").reshape(len(values), -1),
        }

    def _images(self, content: bytes, kind: Any) -> np.ndarray:
        return np.frombuffer(content, kind).reshape(-1, *self.image_shape)


# Node


def in_node(page: Path) -> Evaluate:
    """Calls JavaScript in a new process of Node for each call."""

    def evaluate(function: str, value: Any) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            return javascript(Path(folder), page, f"console.log(JSON.stringify(({function})({json.dumps(value)})));")

    return evaluate


def costs_in_node(page: Path) -> dict[str, Any]:
    """What `kvae.runtime.footprint` measures, of a page in a process of Node."""
    started = 1000 * time.time()
    measured = in_node(page)(
        f"""() => {{
          decode(model, new Array(model.latent_dim).fill(0));
          const loaded = Date.now() - {started};
          const latency = ({LATENCY})({GROUPS});
          const status = fs.existsSync("/proc/self/status") ? fs.readFileSync("/proc/self/status", "utf8") : "";
          return {{ loaded, latency, memory: Number((status.match(/VmHWM:\\s*(\\d+)/) || [0, NaN])[1]) }};
        }}""",
        None,
    )
    memory = measured["memory"]
    return _costs(measured["loaded"], measured["latency"], None if memory is None else memory * 1024 / 1e6)


# Chromium


class Browser:
    """A headless Chromium.

    Args:
        browser: that of playwright.
    """

    def __init__(self, browser: Any) -> None:
        self._browser = browser

    def open(self, page: Path) -> Any:
        """Opens a page as a person would, and returns it when it is ready."""
        tab = self._browser.new_context().new_page()
        tab.add_init_script(FIRST_IMAGE)
        tab.goto(page.as_uri())
        tab.wait_for_selector("body[data-ready]")
        return tab

    def inside(self, page: Path) -> Evaluate:
        """Calls JavaScript in the worker of a page."""
        return self.open(page).workers[0].evaluate

    def costs(self, page: Path) -> dict[str, Any]:
        """What `kvae.runtime.footprint` measures, without the memory, from the navigation in a running browser."""
        tab = self.open(page)
        latency = tab.workers[0].evaluate(LATENCY, GROUPS)
        result = _costs(tab.evaluate("firstImage"), latency, None)
        tab.context.close()
        return result


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, which is closed at the end of the block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield Browser(browser)
        browser.close()


def _costs(loaded: float, latency: float, memory: float | None) -> dict[str, Any]:
    """Costs in the form of `kvae.runtime.footprint`, from milliseconds until the first image and for one decode.

    The page decodes one point after the other, so that 64 of them take 64 times as long.
    """
    return {
        "load_seconds": loaded / 1000,
        "peak_memory_mb": memory,
        "latency_us": {"1 threads": {"1": 1000 * latency, "64": 64_000 * latency}},
    }


def missing(engine: str) -> str | None:
    """What is not installed of what an engine needs, `node` or `chromium`; None if nothing is missing."""
    if engine == "node":
        return "Node" if NODE is None else None
    if CHROMIUM is None:
        return "Chromium"
    return "playwright" if importlib.util.find_spec("playwright") is None else None
