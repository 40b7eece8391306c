"""Every kind of figure: which files it leaves, its options, and for which models it is not suitable."""

from pathlib import Path

import pytest
from figure_cases import FILES, HISTORY, OPTIONS
from PIL import Image
from slow_cases import slow

from kvae.internal.errors import UserError
from kvae.plotting import figures
from kvae.training.config import RunConfig, load_values, recipes


def test_every_kind_of_figure_is_tested():
    assert figures.KINDS.keys() == FILES.keys() == OPTIONS.keys()


def test_every_function_of_a_kind_is_public():
    assert {make.__name__ for make in figures.KINDS.values()} <= set(figures.__all__)


# --- every kind


DIGITS = [(kind, "digits") for kind in FILES]
OTHERS = [(kind, name) for kind in FILES for name in ("odd", "colour") if kind != "learning_curves"]


@pytest.mark.parametrize(("kind", "name"), [*DIGITS, *slow(*OTHERS)])
@pytest.mark.usefixtures("few_contour_points")
def test_every_kind_leaves_pictures_of_a_sensible_size(subject_of, kind, name, tmp_path):
    paths = figures.draw(kind, subject_of(name), tmp_path)
    assert [path.name for path in paths] == [f"{file}.png" for file in FILES[kind]]
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths}
    for path in paths:
        with Image.open(path) as image:
            assert min(image.size) >= 50
            assert 100 <= max(image.size) <= 2500
            low, high = image.convert("L").getextrema()
            assert low < high


@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<?xml"), (".pdf", b"%PDF")])
@pytest.mark.parametrize("kind", ["latent_scatter", "lattice"])
def test_figures_and_pictures_are_written_as_vector_graphics(tiny, kind, suffix, start, tmp_path):
    paths = figures.draw(kind, tiny, tmp_path, suffix=suffix)
    assert [path.name for path in paths] == [f"{file}{suffix}" for file in FILES[kind]]
    assert all(path.read_bytes().startswith(start) for path in paths)


def test_the_label_goes_into_every_name(tiny, tmp_path):
    paths = figures.draw("samples", tiny, tmp_path, label="epoch_0010")
    names = ["samples_epoch_0010.png", "samples_grid_epoch_0010.png", "samples_strip_epoch_0010.png"]
    assert [path.name for path in paths] == names


@pytest.mark.parametrize("kind", OPTIONS)
def test_options_of_a_kind_are_those_of_its_function(kind):
    assert figures.options_of(kind) == OPTIONS[kind]


def test_an_option_reaches_its_kind(tiny, tmp_path):
    (path,) = figures.draw("lattice", tiny, tmp_path, n=25, seamless=True)
    with Image.open(path) as image:
        assert image.size == (25 * 4, 25 * 3)


def test_an_option_may_stand_beside_the_kind_and_gives_way_to_one_of_the_call(tiny, tmp_path):
    for options, n in (({}, 25), ({"n": 5}, 5)):
        (path,) = figures.draw("lattice(n=25, seamless=true)", tiny, tmp_path, **options)
        with Image.open(path) as image:
            assert image.size == (n * 4, n * 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latice(n=3)", r"Unknown kind of plot 'latice'\. Did you mean 'lattice'"),
        ("lattice(m=3)", r"Unknown option of lattice 'm'"),
        ("lattice(n)", r"Expected a kind of plot with options such as .* Received 'lattice\(n\)'"),
        ("lattice(n=3", r"Unknown kind of plot 'lattice\(n=3'"),
        ("lattice(n=3})", "Expected a kind of plot with options"),
    ],
)
def test_a_kind_with_options_that_cannot_be_read_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        figures.check_kinds([text])


def test_the_recipe_of_the_assignment_draws_fifty_by_fifty_digits_on_1400_by_1400_pixels(digits_2d, tmp_path):
    (kind,) = RunConfig.from_dict(load_values("assignment_2d")).training.plots
    (path,) = figures.draw(kind, digits_2d, tmp_path)
    with Image.open(path) as image:
        assert (path.name, image.size) == ("lattice.png", (1400, 1400))


def test_an_unknown_option_names_the_nearest_one(tiny, tmp_path):
    with pytest.raises(UserError, match=r"Unknown option of lattice 'extend'\. Did you mean 'extent'"):
        figures.draw("lattice", tiny, tmp_path, extend=3)


def test_an_unknown_kind_names_the_nearest_one(tiny, tmp_path):
    with pytest.raises(UserError, match=r"Unknown kind of plot 'latice'\. Did you mean 'lattice'"):
        figures.draw("latice", tiny, tmp_path)


def test_one_unknown_kind_among_known_ones_is_found():
    with pytest.raises(UserError, match="'sample'"):
        figures.check_kinds(["lattice", "sample"])


def test_an_unknown_suffix_is_refused_and_nothing_is_left(tiny, tmp_path):
    with pytest.raises(UserError, match="Expected the suffix of a picture"):
        figures.draw("lattice", tiny, tmp_path, suffix=".txt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", recipes())
def test_plots_of_the_recipes_are_existing_kinds(name):
    figures.check_kinds(RunConfig.from_dict(load_values(name)).training.plots)


# --- what is unsuitable


@pytest.mark.slow
@pytest.mark.parametrize("latent_dim", [1, 3, *slow(2, 5)])
@pytest.mark.usefixtures("few_contour_points")
def test_only_pictures_of_the_plane_need_two_latent_dimensions(subject_of, latent_dim):
    unsuitable = set()
    for kind, make in figures.KINDS.items():
        try:
            make(subject_of("tiny", latent_dim))
        except figures.Unsuitable:
            unsuitable.add(kind)
    assert unsuitable == (set() if latent_dim == 2 else {"lattice", "map", "posterior_contours"})


@pytest.mark.parametrize(
    "kind", ["reconstructions", "latent_scatter", "map", "interpolation", "completion", "posterior_contours"]
)
def test_kinds_that_look_at_data_are_unsuitable_without(tiny, kind):
    with pytest.raises(figures.Unsuitable, match=r"Expected data .* Received none"):
        figures.KINDS[kind](figures.Subject(tiny.vae))


@pytest.mark.parametrize("kind", ["samples", "lattice", "learning_curves"])
def test_kinds_that_do_not_look_at_data_need_none(tiny, kind):
    assert figures.KINDS[kind](figures.Subject(tiny.vae, history=HISTORY)).keys() == set(FILES[kind])


def test_learning_curves_without_a_history_are_unsuitable(tiny):
    with pytest.raises(figures.Unsuitable, match="Expected a history"):
        figures.learning_curves(figures.Subject(tiny.vae, tiny.data))


@pytest.mark.parametrize("kind", ["latent_scatter", "map", "interpolation"])
def test_kinds_that_use_labels_do_not_need_them(subject_of, kind):
    assert figures.KINDS[kind](subject_of("unlabelled")).keys() == set(FILES[kind])


def test_an_unsuitable_kind_says_why_and_leaves_nothing(subject_of, tmp_path):
    with pytest.raises(figures.Unsuitable, match=r"2 latent dimensions.* This model has 3"):
        figures.draw("lattice", subject_of("tiny", 3), tmp_path / "plots")
    assert not (tmp_path / "plots").exists()


def test_pictures_go_into_a_folder_that_is_made(tiny, tmp_path):
    (path,) = figures.draw("lattice", tiny, tmp_path / "new" / "plots")
    assert path == Path(tmp_path / "new" / "plots" / "lattice.png")
    assert path.is_file()
