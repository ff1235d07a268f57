"""Scales of reproduction: their files and their names."""

from dataclasses import fields

import pytest

import waterbed as wb
from waterbed.training.config import TrainConfig
from waterbed_paper.scale import Dimension, Network, Source, Transfers, read_scale, recipe


def test_names_of_networks():
    assert Network("cifar10", "standard", 0.0, 0).name == "cifar10/standard/seed-0"
    assert Network("cifar10", "standard", 0.0, 0).file == "cifar10-standard.safetensors"
    assert Network("cifar10", "adversarial", 0.25, 2).file == "cifar10-eps-0.25-seed-2.safetensors"
    assert Network("cifar10", "gaussian-noise", 1.0, 0).name == "cifar10/gaussian-noise-eps-1/seed-0"


def test_the_cpu_scale_takes_the_networks_that_are_kept():
    """Its settings are those of the recipe that the networks of results/networks were trained with."""
    from pathlib import Path

    from waterbed.cli.options import from_config
    from waterbed.cli.train import Train

    recipe = from_config(Train, Path(__file__).parents[3] / "recipes/cifar10-narrow.toml")
    source = read_scale("cpu").source("cifar10")
    for key in ("data", "model", "width", "attack_steps"):
        assert getattr(source, key) == getattr(recipe, key), key
    for key in ("epochs", "lr", "augment", "batch_size", "weight_decay"):
        assert getattr(source.training, key) == getattr(recipe, key), key


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("about = 'x'", r"has no \[\[sources\]\]"),
        ("sources = 3 = 4", "is not TOML"),
        ("about = 'x'\ncolour = 1\n[[sources]]\nname = 'a'\ndata = 'digits'\nseeds = { 0 = 1 }", "colour"),
        ("about = 'x'\n[[sources]]\nname = 'a'", "is incomplete"),
        (
            "about = 'x'\n[[sources]]\nname = 'a'\ndata = 'digits'\nseeds = { 0 = 1 }\nbatchsize = 8",
            "batchsize.*did you mean 'batch_size'",
        ),
        (
            "about = 'x'\n[[sources]]\nname = 'a'\ndata = 'digits'\nseeds = { 0 = 1 }\nepochs = 0",
            r"mine.toml', \[\[sources\]\]: epochs=0 must be a whole number >= 1",
        ),
        (
            "about = 'x'\n[[sources]]\nname = 'a'\ndata = 'digits'\nseeds = { 0 = 1 }\nmomentum = 0.5",
            "the key='momentum' is unknown",
        ),
        (
            "about = 'x'\n[transfers]\ntraining = 1\n[[sources]]\nname = 'a'\ndata = 'digits'\nseeds = { 0 = 1 }",
            "the key='training' is unknown",
        ),
        ("about = 'x'\n[transfers]\nlr = [0.01]\n[[sources]]\nname = 'a'\ndata = 'digits'", "give a table"),
    ],
)
def test_wrong_files(tmp_path, text, said):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(wb.UsageError, match=said):
        read_scale(file)


def test_wrong_names(tmp_path):
    with pytest.raises(wb.UsageError, match="scale='huge'"):
        read_scale("huge")
    with pytest.raises(wb.UsageError, match="cannot be read"):
        read_scale(tmp_path / "none.toml")


def test_a_recipe_is_that_of_a_training_with_the_file_s_settings(tmp_path):
    (tmp_path / "mine.toml").write_text("""
about = "x"
[[sources]]
name = "a"
data = "digits"
seeds = { 0 = 1 }
schedule = "step"
milestones = [3, 5]
[transfers]
nesterov = false
[dimension]
data = "digits"
sizes = [4, 8]
lr = 0.2
""")
    scale = read_scale(tmp_path / "mine.toml")
    shared = {"batch_size": 128, "weight_decay": 5e-4}
    assert recipe(scale.sources[0]) == {
        **shared, "epochs": 12, "lr": 0.1, "schedule": "step", "milestones": (3, 5), "augment": "crop-flip"
    }  # fmt: skip
    assert recipe(scale.transfers) == {**shared, "schedule": "one-cycle", "milestones": (), "nesterov": False}
    assert recipe(scale.dimension) == {"epochs": 6, "batch_size": 128, "lr": 0.2, "augment": "none"}


@pytest.mark.parametrize("part", [Source, Transfers, Dimension])
def test_no_setting_of_a_training_is_declared_a_second_time(part):
    """But for what fine-tuning has by mode."""
    settings = {setting.name for setting in fields(TrainConfig)}
    assert set(part.RECIPE) <= settings
    by_mode = {"epochs", "augment", "lr"} if part is Transfers else set()
    assert {field.name for field in fields(part)} & settings == by_mode
