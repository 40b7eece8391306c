"""The programs of a bundle's README: each is run or compiled as far as this machine can, and draws what kvae draws.

Where a compiler or a library is not installed, its test is skipped; CONTRIBUTING.md says what to install.
"""

import ast
import contextlib
import functools
import http.server
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import kvae
from kvae import runtime
from kvae.export import litert, onnx, snippets
from kvae.export.endpoints import decoded_name

STAND_INS = Path(__file__).parents[1] / "helpers" / "stand_ins"
NODE_MODULES = Path(os.environ.get("KVAE_NODE_MODULES", "/nowhere"))
CHROMIUM = os.environ.get("KVAE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
SEED = -712589174
LITERT = {variant: runtime.FORMATS["tflite"].variants[variant] for variant in ("float32", "int8")}
ONNX = dict(runtime.FORMATS["onnx"].variants)
MODELS = {
    "conditional": lambda: kvae.VAE(2, hidden_units=(8,), seed=0, condition_shape=(3,)),
    "colour": lambda: kvae.VAE(5, hidden_units=(8,), seed=0, likelihood=kvae.likelihoods.Gaussian("learned")),
    "latent_16": lambda: kvae.VAE(16, hidden_units=(8,), seed=0),
}
BOTH = ("conditional", "colour")  # have all lines of the templates, for tests of slow compilers and runtimes
SHAPES = {"conditional": (6, 5, 1), "colour": (7, 8, 3), "latent_16": (6, 5, 1)}


def needs(package: str):
    return pytest.mark.skipif(
        not (NODE_MODULES / package).is_dir(), reason=f"KVAE_NODE_MODULES has no {package} of npm"
    )


class Case(NamedTuple):
    vae: kvae.VAE
    folder: Path
    facts: snippets.Facts

    def snippet(self, language: str, files: dict[str, str] | None = None) -> snippets.Snippet:
        """The program for one language, for a bundle of these files."""
        facts = self.facts if files is None else self.facts._replace(files=files)
        return next(each for each in snippets.render(facts) if each.language == language)

    def pictures(self, file: str) -> dict[str, np.ndarray]:
        """The pictures that a program must draw with a file of the bundle."""
        decoder = runtime.load(self.folder / file)
        z = np.eye(1, decoder.latent_dim, dtype=np.float32)
        means = {
            "sample": decoder.sample([SEED], self.condition).means,
            "decoded": decoder.decode(z, self.condition).means,
        }
        return {name: np.rint(255 * values[0]).astype(np.uint8) for name, values in means.items()}

    @property
    def condition(self) -> np.ndarray | None:
        shape = self.facts.condition_shape
        return None if shape is None else snippets.example_condition(shape)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """decoder.tflite of each model with what the programs need to know of a bundle, made when first asked for."""

    @functools.cache
    def make(name: str) -> Case:
        vae, folder = MODELS[name](), tmp_path_factory.mktemp(name)
        vae.build((None, *SHAPES[name]))
        weights = [3 * value + 0.1 for value in vae.decoder.get_weights()]
        vae.decoder.set_weights(weights)  # pixels that depend visibly on z and on their place
        shape = vae.condition_shape
        example = None if shape is None else snippets.example_condition(shape)
        litert.write(vae, folder, ["float32"], example)
        z = runtime.load(folder / "decoder.tflite").sample([SEED], example).z[0].tolist()
        facts = snippets.Facts(LITERT, vae.latent_dim, vae.image_shape, decoded_name(vae), shape, SEED, z)
        return Case(vae, folder, facts)

    return make


def assert_drawn(folder: Path, expected: dict[str, np.ndarray], tolerance: int = 0) -> None:
    """The program has written the pictures, up to a difference of some grey values."""
    for name, picture in expected.items():
        (path,) = folder.glob(f"{name}.p?m")
        with Image.open(path) as opened:
            found = np.asarray(opened).reshape(picture.shape).astype(int)
        assert abs(found - picture).max() <= tolerance, name
    assert len(np.unique(expected["sample"])) > 5  # an empty picture would prove nothing


# One byte: LiteRT on another platform and other runtimes sum in another order, which may turn a rounding.
ROUNDING = 1


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_python_program_draws_the_pictures_of_kvae_with_numpy_and_litert_alone(case, monkeypatch, tmp_path, name):
    made = case(name)
    run_python(made.snippet("python"), {"numpy", "ai_edge_litert"}, made, monkeypatch, tmp_path)
    assert_drawn(tmp_path, made.pictures("decoder.tflite"))


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
def test_the_python_program_for_onnx_draws_the_pictures_of_kvae(case, monkeypatch, tmp_path, name):
    made = with_onnx(case, name)
    run_python(made.snippet("python", ONNX), {"numpy", "onnxruntime"}, made, monkeypatch, tmp_path)
    assert_drawn(tmp_path, made.pictures("decoder.onnx"))


def run_python(snippet, packages, made, monkeypatch, folder) -> None:
    for file in made.folder.glob("decoder*"):
        shutil.copy(file, folder)
    tree = ast.parse(snippet.code)
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == packages
    monkeypatch.chdir(folder)
    exec(compile(tree, "program", "exec"), {"__name__": "__main__"})


def with_onnx(case, name) -> Case:
    """The files of a model, with decoder.onnx."""
    for package in ("tf2onnx", "onnxruntime"):
        pytest.importorskip(package, reason="the extra kvae[onnx] is not installed")
    made = case(name)
    if not (made.folder / "decoder.onnx").is_file():
        onnx.write(made.vae, made.folder, ONNX)
    return made


def with_int8(made: Case) -> Case:
    """The files of a model, with decoder_int8.tflite."""
    litert.write(made.vae, made.folder, ["int8"], made.condition)
    return made


def test_a_program_stops_where_the_seed_gives_another_z(case, monkeypatch, tmp_path):
    made = case("conditional")
    facts = made.facts._replace(z_of_seed=[value + 0.01 for value in made.facts.z_of_seed])
    with pytest.raises(AssertionError):
        run_python(snippets.render(facts)[0], {"numpy", "ai_edge_litert"}, made, monkeypatch, tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_every_name_in_a_program_is_one_of_the_exported_file(case, name):
    """The programs that are run prove it themselves; this is for Swift, and for machines without the compilers."""
    from ai_edge_litert.interpreter import Interpreter

    made = case(name)
    signatures = Interpreter(str(made.folder / "decoder.tflite")).get_signature_list()
    tensors = {each for signature in signatures.values() for kind in signature.values() for each in kind}
    used = {"sample_1", "decode_1", "seed", "z", "means"} | ({"condition"} if made.condition is not None else set())
    files = {*LITERT.values(), *ONNX.values(), "decoder_int8", "tflite"}
    for language in ("kotlin", "swift", "cpp"):
        code = re.sub(r"#include.*|// .*", "", made.snippet(language).code)
        found = set(re.findall(r'"([a-z][\w.]*)"', code))
        assert used <= found, language
        assert found <= {*signatures, *tensors, *files, "wb", "sample.pgm", "decoded.pgm", "sample.ppm", "decoded.ppm"}
    for snippet in snippets.render(made.facts._replace(files=LITERT | ONNX)):
        assert {*re.findall(r"\w+\.(?:tflite|onnx)\b", snippet.code)} <= files, snippet.title
        assert not re.search(r"@[A-Z_]+@|^\?", snippet.code, re.M), snippet.title  # everything is filled in


def test_phones_get_the_small_file_and_only_programs_whose_file_is_there_are_made():
    facts = snippets.Facts(LITERT, 2, (28, 28, 1), "logits", None, SEED, [0.5, -1.0])

    def files(facts):
        named = {
            each.language: re.findall(r"decoder\w*\.(?:tflite|onnx)", each.code) for each in snippets.render(facts)
        }
        return {language: set(names) for language, names in named.items()}

    small, large = {"decoder_int8.tflite"}, {"decoder.tflite"}
    assert files(facts) == {"python": large, "kotlin": small, "swift": small, "cpp": large, "html": large}
    assert files(facts._replace(files=LITERT | ONNX))["js"] == {"decoder.onnx"}
    assert set(files(facts._replace(files=ONNX))) == {"python", "js"}
    assert files(facts._replace(files={"saved_model": "saved_model", "full_int8": "decoder_full_int8.tflite"})) == {}
    page = facts._replace(files=LITERT | {"web_int8": "web/index.html"})
    assert "web/index.html" in next(each.code for each in snippets.render(page) if each.language == "html")


@pytest.mark.parametrize("shape", [(12,), (6, 5, 2), (2, 3, 4, 1)])
def test_a_model_whose_images_are_no_pictures_gets_no_programs(shape):
    assert snippets.render(snippets.Facts(LITERT, 2, shape, "logits", None, SEED, [0.5, -1.0])) == []


def test_images_without_channels_are_grey_pictures():
    facts = snippets.Facts(LITERT, 2, (6, 5), "logits", None, SEED, [0.5, -1.0])
    assert snippets.render(facts) == snippets.render(facts._replace(image_shape=(6, 5, 1)))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
@needs("onnxruntime-web")
@pytest.mark.parametrize("name", BOTH)
def test_the_javascript_program_draws_the_pictures_of_kvae_in_node(case, tmp_path, name):
    made = with_onnx(case, name)
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    (tmp_path / "draw.mjs").write_text(made.snippet("js", ONNX).code)
    shutil.copy(made.folder / "decoder.onnx", tmp_path)
    run(["node", "draw.mjs"], tmp_path)
    assert_drawn(tmp_path, made.pictures("decoder.onnx"), ROUNDING)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")
@needs("@litertjs/core")
@pytest.mark.parametrize("name", BOTH)
def test_the_page_for_litert_js_draws_the_pictures_of_kvae_in_a_browser(case, tmp_path, name):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    made = case(name)
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    (tmp_path / "index.html").write_text(made.snippet("html").code)
    shutil.copy(made.folder / "decoder.tflite", tmp_path)
    errors: list = []
    with served(tmp_path) as address, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(f"{address}/index.html")
        page.wait_for_function("document.querySelectorAll('canvas').length === 2", timeout=60_000)
        pictures = page.evaluate(
            "[...document.querySelectorAll('canvas')].map((c) =>"
            " [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data])"
        )
        browser.close()
    assert errors == []
    for found, expected in zip(pictures, made.pictures("decoder.tflite").values(), strict=True):
        rgba = np.array(found).reshape(*expected.shape[:2], 4)
        assert abs(rgba[..., :3] - expected.astype(int)).max() <= ROUNDING
        assert (rgba[..., 3] == 255).all()


@contextlib.contextmanager
def served(folder: Path):
    """Serves the files of a folder to this machine alone; the value is the address."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def record(made: Case, file: str, folder: Path) -> None:
    """Writes the inputs and outputs of one call of each signature, for the stand-ins of an interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(made.folder / file))
    condition = {} if made.condition is None else {"condition": made.condition}
    calls = {
        "sample_1": {"seed": np.array([SEED], np.int32), **condition},
        "decode_1": {"z": np.eye(1, made.facts.latent_dim, dtype=np.float32), **condition},
    }
    (folder / "recorded").mkdir()
    for signature, inputs in calls.items():
        outputs = interpreter.get_signature_runner(signature)(**inputs)
        for kind, values in (("input", inputs), ("output", outputs)):
            for key, value in values.items():
                (folder / "recorded" / f"{signature}.{kind}.{key}").write_bytes(value.tobytes())


def run(command: list, folder: Path) -> None:
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
@pytest.mark.parametrize("name", BOTH)
def test_the_cpp_program_compiles_and_draws_the_pictures_of_kvae(case, tmp_path, name):
    made = case(name)
    snippet = made.snippet("cpp")
    (tmp_path / "draw.cpp").write_text(snippet.code)
    shutil.copy(made.folder / "decoder.tflite", tmp_path)
    library = os.environ.get("KVAE_TFLITE", "").split()  # options of the compiler for the real TensorFlow Lite
    if not library:
        record(made, "decoder.tflite", tmp_path)
        for header in re.findall(r'#include "(.*)"', snippet.code):
            (tmp_path / header).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / header).write_text(f'#include "{STAND_INS / "tflite.h"}"\n')
        library = ["-I.", "-Wall", "-Werror"]
    run(["g++", "-std=c++17", "draw.cpp", "-o", "draw", *library], tmp_path)
    run(["./draw"], tmp_path)
    assert_drawn(tmp_path, made.pictures("decoder.tflite"), ROUNDING)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("javac") is None, reason="javac is not installed")
@needs("kotlin-compiler")
def test_the_kotlin_programs_compile_and_draw_the_pictures_of_kvae(case, tmp_path):
    classes, library = tmp_path / "classes", NODE_MODULES / "kotlin-compiler" / "lib"
    for name in BOTH:  # each in a package of its own, so that the slow compiler starts once
        (tmp_path / name).mkdir()
        (tmp_path / name / "Decoder.kt").write_text(f"package {name}\n{case(name).snippet('kotlin').code}")
    run(["javac", "-d", classes, *sorted(STAND_INS.glob("*.java"))], tmp_path)
    compiler = ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{library}/*", "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"]
    options = ["-kotlin-home", library.parent, "-Werror", "-no-reflect", "-cp", classes, "-d", classes]
    sources = [tmp_path / name / "Decoder.kt" for name in BOTH]
    run([*compiler, *options, *sources], tmp_path)
    for name in BOTH:
        made, folder = with_int8(case(name)), tmp_path / name
        shutil.copy(made.folder / "decoder_int8.tflite", folder)
        record(made, "decoder_int8.tflite", folder)
        run(["java", "-cp", f"{classes}:{library / 'kotlin-stdlib.jar'}", "Main", name], folder)
        for picture, expected in made.pictures("decoder_int8.tflite").items():
            argb = np.frombuffer((folder / f"{picture}.argb").read_bytes(), np.uint8).reshape(*expected.shape[:2], 4)
            assert (argb[..., 0] == 255).all()
            assert abs(argb[..., 1:].astype(int) - expected).max() <= ROUNDING
