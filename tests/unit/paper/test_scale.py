"""Scales of reproduction: their files and their names."""

import pytest

import waterbed as wb
from waterbed_paper.scale import Network, read_scale


def test_names_of_networks():
    assert Network("cifar10", "standard", 0.0, 0).name == "cifar10/standard/seed-0"
    assert Network("cifar10", "standard", 0.0, 0).file == "cifar10-standard.safetensors"
    assert Network("cifar10", "adversarial", 0.25, 2).file == "cifar10-eps-0.25-seed-2.safetensors"
    assert Network("cifar10", "gaussian-noise", 1.0, 0).name == "cifar10/gaussian-noise-eps-1/seed-0"


def test_the_cpu_scale_takes_the_networks_that_are_kept():
    """Its settings are those of the recipe that the networks of results/networks were trained with."""
    from pathlib import Path

    from waterbed.cli.options import from_config
    from waterbed.cli.training import Train

    recipe = from_config(Train, Path(__file__).parents[3] / "recipes/cifar10-narrow.toml")
    source = read_scale("cpu").source("cifar10")
    for key in ("data", "model", "width", "epochs", "lr", "augment", "attack_steps", "batch_size", "weight_decay"):
        assert getattr(source, key) == getattr(recipe, key), key


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("about = 'x'", r"has no \[\[sources\]\]"),
        ("sources = 3 = 4", "is not TOML"),
        ("about = 'x'\ncolour = 1\n[[sources]]\nname = 'a'\ndata = 'digits'\nseeds = { 0 = 1 }", "colour"),
        ("about = 'x'\n[[sources]]\nname = 'a'", "is incomplete"),
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
