"""The JavaScript of the web page, run by Node."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).parents[1] / "kvae" / "web"
NODE = shutil.which("node")

# Opens the page that the command line names, as the worker does.
PROGRAM = """
const fs = require("fs");
const text = fs.readFileSync(process.argv[2], "utf8");
const part = (id) => text.split(`id="${id}">`)[1].split("</script>")[0];
model = openModel(JSON.parse(part("model")), part("arrays"));
const shown = (array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString("base64");
"""


def javascript(folder: Path, page: Path, code: str) -> Any:
    """What code prints as JSON; `model` is the one of the page.

    Args:
        folder: where the program is written.
        page: the page.
        code: JavaScript, which may use `await`.
    """
    from kvae.export.web import ENGINE  # which imports TensorFlow

    program = folder / "program.js"
    engine = "".join((ASSETS / name).read_text() for name in ENGINE)
    program.write_text(f"var onmessage;{engine}{PROGRAM}(async () => {{{code}}})();")
    done = subprocess.run([NODE, program, page], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
