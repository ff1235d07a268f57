"""draw_gallery: pictures and numbers of inversions, from plain arguments."""

import ast
import dataclasses
import inspect
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import waterbed as wb
import waterbed.cli.invert
from waterbed.cli.invert import Invert
from waterbed.data.loading import stack
from waterbed.inversion import defaults, gallery, invert, study
from waterbed.inversion.gallery import COLUMNS, draw_gallery

MODULES = (invert, gallery, study, waterbed.cli.invert)
OWN = {  # defaults that differ on purpose
    "invert_label": {"steps", "optimizer"},
    "effective_images": {"betas"},
    "study_convergence": {"num_images"},
}
SHORT = {"steps": 2, "num_images": 2, "num_samples": 6}


@pytest.fixture
def models():
    """Two untrained networks that know the shape of their images."""
    models = {}
    for seed, name in enumerate(("first", "second")):
        models[name] = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=seed).eval()
        models[name].input_shape = (1, 8, 8)
    return models


def test_pictures_and_numbers_of_each_and_one_that_compares(models, digits, tmp_path):
    result = draw_gallery(models, lambda name: digits, tmp_path, mode="plain", **SHORT)
    assert {p.name for p in tmp_path.iterdir()} == {
        *("first.png", "first.json", "second.png", "second.json", "compared.png")
    }
    assert tuple(result.columns) == COLUMNS
    assert [row[:2] for row in result.rows] == [["first", "plain"], ["second", "plain"]]
    record = json.loads((tmp_path / "second.json").read_text())
    expected = wb.invert(models["second"], stack(digits.test, 2, seed=0)[0], steps=2)
    assert record["plain"]["final_losses"] == expected.final_losses.tolist()
    assert record["settings"]["network"] == "second"
    assert record["settings"]["data"] == digits.name


def test_the_study_over_beta_is_effective_at_each(models, digits, tmp_path):
    result = draw_gallery(
        {"one": models["first"]}, lambda name: digits, tmp_path, study="beta", betas=(1e-8, 1e-6), **SHORT
    )
    assert [row[1] for row in result.rows] == ["beta 1e-08", "beta 1e-06"]
    record = json.loads((tmp_path / "one.json").read_text())
    assert 0 < record["beta 1e-08"]["noise_size"] < record["beta 1e-06"]["noise_size"]
    assert record["beta 1e-06"]["accuracy"]["n"] == 6


def test_one_s_own_pictures_need_no_data_and_notes_say_what_is_left_out(models, tmp_path):
    for i in range(3):
        Image.fromarray(np.full((20, 30), 80 * i, dtype=np.uint8)).save(tmp_path / f"{i}.png")

    def refuse(name):
        raise AssertionError("no data are asked for")

    result = draw_gallery(models, refuse, tmp_path / "out", images=tmp_path, mode="plain", **SHORT)
    assert result.notes == ["the first 2 of 3 pictures; num_images=3 takes all"]
    assert json.loads((tmp_path / "out/first.json").read_text())["settings"]["files"] == ["0.png", "1.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "blurry"}, "mode='blurry'"),
        ({"study": "speed"}, "study='speed'"),
        ({"num_images": 0}, "num_images=0"),
        ({"study": "convergence", "animate": True}, "animate=True has no effect with study='convergence'"),
        ({"study": "convergence", "beta": 1e-3}, "beta=0.001 has no effect with study='convergence'"),
        ({"mode": "class", "study": "beta"}, "study='beta' has no effect with mode='class'"),
        ({"mode": "class", "fake_relu": True}, "fake_relu=True has no effect with mode='class'"),
        ({"mode": "plain", "study": "beta"}, "mode='plain' has no effect with study='beta'"),
        ({"images": "nowhere"}, "images='nowhere' is not a folder"),
        ({"layer": "nowhere"}, "layer='nowhere'"),
        ({"study": "beta", "betas": ()}, "betas is empty"),
    ],
)
def test_arguments_that_are_wrong_or_have_no_use(models, digits, tmp_path, arguments, message):
    with pytest.raises(wb.UsageError, match=message):
        draw_gallery(models, lambda name: digits, tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_network_that_does_not_say_what_it_takes(tiny, tmp_path):
    with pytest.raises(wb.UsageError, match=r"does not record the size of its images; waterbed convert --size"):
        draw_gallery({"tiny": tiny}, None, tmp_path, images=tmp_path)


def test_the_command_has_the_defaults_of_the_gallery():
    parameters = inspect.signature(draw_gallery).parameters
    own = ("runs", "data", "root", "download")
    fields = {f.name: f.default for f in dataclasses.fields(Invert) if f.name not in own}
    assert {name: parameters[name].default for name in fields} == fields


def second_defaults(source):
    """Shared defaults that are written as a number, a string or a tuple instead of read from the one place."""
    shared = {name.lower() for name in vars(defaults) if name.isupper()} | {"seeds"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            ordered = [*node.args.posonlyargs, *node.args.args]
            pairs = [*zip(ordered[len(ordered) - len(node.args.defaults) :], node.args.defaults, strict=True)]
            pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            literals = {a.arg for a, d in pairs if a.arg in shared and isinstance(d, (ast.Constant, ast.Tuple))}
            yield from sorted(literals - OWN.get(node.name, set()))
        elif isinstance(node, ast.ClassDef):
            fields = [f for f in node.body if isinstance(f, ast.AnnAssign)]
            yield from (
                f.target.id for f in fields if f.target.id in shared and isinstance(f.value, (ast.Constant, ast.Tuple))
            )


def test_shared_defaults_are_declared_once():
    literals = {m.__name__: set(second_defaults(Path(m.__file__).read_text())) for m in MODULES}
    assert literals == {m.__name__: set() for m in MODULES}
    assert list(second_defaults("def f(steps=1000, *, seeds=3): ...")) == ["seeds", "steps"]
    assert list(second_defaults("class C:\n    betas: tuple = (1e-8,)")) == ["betas"]
