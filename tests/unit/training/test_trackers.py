"""Trackers, milestones, dry runs, and every recipe of the project."""

from dataclasses import fields
from pathlib import Path

import pytest

import waterbed as wb
from waterbed.__main__ import main
from waterbed.cli.options import from_config
from waterbed.cli.train import Train
from waterbed.cli.transfer import Transfer
from waterbed.training.config import TrainConfig
from waterbed.training.dry_run import dry_run

RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("*.toml"))
SHORT = {"epochs": 2, "batch_size": 64, "watch": 0, "progress": False, "precision": "fp32"}


def new_model():
    return wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)


class Notebook:
    def __init__(self):
        self.lines, self.closed = [], False

    def log(self, values, step):
        self.lines.append((step, values["loss"]))

    def finish(self):
        self.closed = True


def test_any_object_can_track_and_is_closed_after_an_exception(digits):
    notebook = Notebook()
    run = wb.fit(new_model(), digits, trackers=[notebook], **SHORT)
    assert notebook.lines == [(r["epoch"], r["loss"]) for r in run.history]
    assert notebook.closed
    other = Notebook()
    with pytest.raises(wb.DivergenceError):
        wb.fit(new_model(), digits, trackers=[other], lr=1e30, **SHORT)
    assert other.closed


@pytest.mark.filterwarnings("ignore")  # of tensorboard's own imports
def test_tensorboard_gets_every_record(digits, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = wb.fit(new_model(), digits, out=tmp_path / "run", trackers=["tensorboard"], **SHORT)
    found = events.EventAccumulator(str(tmp_path / "run/tensorboard/waterbed"))
    found.Reload()
    values = [(e.step, e.value) for e in found.Scalars("loss")]
    assert values == [(r["epoch"], pytest.approx(r["loss"], rel=1e-6)) for r in run.history]


def test_trackers_that_cannot_be_had(digits, tmp_path, monkeypatch):
    with pytest.raises(wb.UsageError, match="trackers='comet' is unknown"):
        wb.fit(new_model(), digits, out=tmp_path / "a", trackers=["comet"], **SHORT)
    with pytest.raises(wb.UsageError, match="needs a run folder"):
        wb.fit(new_model(), digits, trackers=["tensorboard"], **SHORT)
    with pytest.raises(wb.UsageError, match="must be a list"):
        wb.fit(new_model(), digits, trackers="tensorboard", **SHORT)
    with pytest.raises(TypeError, match=r"log\(values, step\) and finish"):
        wb.fit(new_model(), digits, trackers=[print], **SHORT)
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(wb.UsageError, match=r"waterbed\[wandb\]"):
        wb.fit(new_model(), digits, out=tmp_path / "b", trackers=["wandb"], **SHORT)


def test_milestones():
    common = {"batch_size": 2, "lr": 1.0, "momentum": 0.9, "weight_decay": 0.0, "augment": "none"}
    common |= {"validation": 0.0, "watch": 0, "seed": 0, "schedule": "step"}
    settings = TrainConfig(epochs=120, milestones=(50, 80), **common)
    assert [settings.rate(e / 120) for e in (0, 49.99, 50, 79, 80, 119)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    thirds = TrainConfig(epochs=9, **common)
    assert [thirds.rate(e / 9) for e in (0, 2.9, 3, 6, 8.9)] == pytest.approx([1, 1, 0.1, 0.01, 0.01])
    with pytest.raises(wb.UsageError, match="milestones"):
        TrainConfig(epochs=9, milestones=(3,), **{**common, "schedule": "cosine"})


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_is_understood(recipe):
    text = recipe.read_text()
    kind = Train if "\ndata = " in text else Transfer
    command = from_config(kind, recipe)
    named = {line.split(" = ")[0] for line in text.splitlines() if " = " in line and not line.startswith("#")}
    assert named <= {f.name for f in fields(kind)}
    assert command.epochs > 0
    if kind is Train and command.schedule == "step":
        assert max(command.milestones) < command.epochs


def test_a_dry_run_says_what_it_would_cost_and_writes_nothing(tmp_path, capsys):
    words = f"train digits --out {tmp_path}/run --model resnet10 --width 4 --epochs 3 --attack-steps 1 --dry-run"
    assert main(words.split()) == 0
    said = capsys.readouterr().out
    for word in ("parameters", "peak memory", "ms", "in all", "(1, 8, 8)"):
        assert word in said
    assert not (tmp_path / "run").exists()


def test_a_dry_run_makes_the_steps_that_fit_makes(digits):
    """72 images are one batch of 72, not three of 128 less what is missing."""
    model = wb.create_model("resnet10", 10, width=2, in_channels=1)
    batches = []

    class Counting(wb.Standard):
        def __call__(self, model, forward, x, y):
            batches.append(len(x))
            return super().__call__(model, forward, x, y)

    rows = dict(dry_run(model, digits.take(72, 10), Counting(), TrainConfig(precision="fp32")))
    assert batches == [72, 72, 72]
    assert rows["logits of a batch"] == "(72, 10)"
    assert rows["steps"] == "1 an epoch, 30 in all"
