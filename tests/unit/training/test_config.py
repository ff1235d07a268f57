"""Every setting of a training is declared once, and read everywhere else."""

import ast
import inspect
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

import waterbed as wb
from waterbed.cli.sweep import Sweep
from waterbed.cli.train import Train
from waterbed.training.config import TrainConfig
from waterbed.transfer_learning.settings import FINETUNING

SOURCES = Path(__file__).parents[3] / "src"
SETTINGS = {setting.name: setting for setting in fields(TrainConfig)}
# Names of settings that stand for something else there; seeds and progress bars are every function's own.
OTHER_MEANINGS = {
    "batch_size": "images evaluated at once",
    "lr": "step size of an inversion, or None for the config's",
    "measures": "numbers that a model card shows",
    "optimizer": "of the pixels of an inversion or an attack, or the state of one",
    "precision": "arithmetic of an inversion, or of one engine",
    "validation": "fraction of the images that chooses a rate, a strength or a backbone",
    "weight_decay": "of the training that influence speaks of, or candidates of a fine-tuning",
    "workers": "of a loader, an evaluation, a measure or a comparison",
    "augment": "of the images in a cache, none by default",
    "epochs": "by mode of fine-tuning",
    "momentum": "of the running statistics of a batch norm",
}
DECLARED = {
    "waterbed/attacks/pgd.py": {"optimizer"},
    "waterbed/data/loading.py": {"workers"},
    "waterbed/distributed.py": {"precision"},
    "waterbed/evaluation/accuracy.py": {"batch_size", "workers"},
    "waterbed/evaluation/standard.py": {"batch_size", "workers"},
    "waterbed/information/influence.py": {"weight_decay"},
    "waterbed/information/measure.py": {"workers"},
    "waterbed/models/features.py": {"batch_size", "workers"},
    "waterbed/training/callbacks.py": {"workers"},
    "waterbed/models/normalisers.py": {"batch_size"},
    "waterbed/cli/choose.py": {"workers"},
    "waterbed/cli/distance.py": {"workers"},
    "waterbed/cli/evaluate.py": {"workers"},
    "waterbed/cli/measure.py": {"workers"},
    "waterbed/cli/invert.py": {"lr", "optimizer", "precision"},
    "waterbed/inversion/gallery.py": {"lr", "optimizer", "precision"},
    "waterbed/inversion/invert.py": {"lr", "optimizer", "precision"},
    "waterbed/inversion/objective.py": {"precision"},
    "waterbed/inversion/study.py": {"lr", "optimizer"},
    "waterbed/cli/transfer.py": {"lr", "weight_decay"},
    "waterbed/transfer_learning/finetune.py": {"lr", "validation", "weight_decay"},
    "waterbed/transfer_learning/choose.py": {"workers"},
    "waterbed/transfer_learning/distance.py": {"workers"},
    "waterbed/transfer_learning/frozen_trunk.py": {"validation", "workers"},  # the latter read from FINETUNING
    "waterbed/transfer_learning/transfer.py": {"workers"},  # likewise
    "waterbed/transfer_learning/whole_network.py": {"workers"},  # likewise
    "waterbed/transfer_learning/logistic.py": {"validation"},
    "waterbed/transfer_learning/probes.py": {"lr", "validation", "weight_decay"},
    "waterbed/transfer_learning/search.py": {"lr", "weight_decay"},
    "waterbed/transfer_learning/activation_cache.py": {"augment", "workers"},
    "waterbed/reporting/demo.py": {"epochs", "lr"},  # what the demo trains with, not a default
    "waterbed/reporting/results.py": {"measures"},
    "waterbed/training/joint_batch_norm.py": {"momentum"},
    "waterbed/training/run_folder.py": {"measures"},
    "waterbed_paper/linear_probes.py": {"optimizer"},
    "waterbed_paper/scale.py": {
        "epochs",
        "augment",
        "lr",
        "optimizer",
        "precision",
    },  # by mode; of inversions; read from TrainConfig
}


def declarations(path):
    """Names of settings that a function or a class of the file gives a default."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            a = node.args
            positional = [*a.posonlyargs, *a.args]
            names |= {arg.arg for arg in positional[len(positional) - len(a.defaults) :]}
            names |= {arg.arg for arg, value in zip(a.kwonlyargs, a.kw_defaults, strict=True) if value is not None}
        elif isinstance(node, ast.ClassDef):
            names |= {s.target.id for s in node.body if isinstance(s, ast.AnnAssign) and s.value is not None}
    return names & set(SETTINGS) - {"seed", "progress"}


def test_no_setting_is_declared_a_second_time():
    found = {
        str(path.relative_to(SOURCES)): declarations(path)
        for path in SOURCES.rglob("*.py")
        if path.name != "config.py" and declarations(path)
    }
    assert found == DECLARED
    assert {name for names in DECLARED.values() for name in names} == set(OTHER_MEANINGS)


def test_the_command_line_has_the_settings_of_the_config():
    options = {f.name: f.default for f in fields(Train)}
    assert {name: options[name] for name in SETTINGS} == {name: s.default for name, s in SETTINGS.items()}
    assert not set(SETTINGS) - {"seed"} & {f.name for f in fields(Sweep)}  # a sweep reads a recipe of train


def test_fit_and_its_help_have_them():
    parameters = inspect.signature(wb.fit).parameters
    assert len(parameters) < 10
    assert not set(SETTINGS) & set(parameters)
    for name, setting in SETTINGS.items():
        assert f"{name} ({setting.default!r}): {setting.metadata['help']}." in wb.fit.__doc__, name


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_has_a_default_a_line_of_help_and_a_range(name):
    setting = SETTINGS[name]
    assert setting.default is not MISSING
    assert "\n" not in setting.metadata["help"]
    ranges = {"choices", "at_least", "above", "below"} & set(setting.metadata)
    assert ranges or setting.type in ("bool", "tuple[Any, ...]", "Mapping[str, Any] | tuple[str, ...]")


def test_a_config_is_what_the_keywords_are(digits):
    common = {"epochs": 1, "batch_size": 64, "watch": 0, "progress": False, "precision": "fp32"}
    runs = [
        wb.fit(wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0), digits, **how)
        for how in (common, {"config": TrainConfig(**common)}, {"config": TrainConfig(epochs=3), **common})
    ]
    assert runs[0].config == runs[1].config == runs[2].config
    assert runs[0].history[0]["loss"] == runs[1].history[0]["loss"] == runs[2].history[0]["loss"]


def test_wrong_settings_are_named(digits):
    model = wb.create_model("resnet10", 10, width=2, in_channels=1)
    with pytest.raises(wb.UsageError, match=r"epoch.*did you mean 'epochs'"):
        wb.fit(model, digits, epoch=3)
    with pytest.raises(TypeError, match=r"config=.*must be a TrainConfig"):
        wb.fit(model, digits, config={"epochs": 3})
    for settings, message in (
        ({"momentum": 1.0}, "momentum=1.0 must be below 1"),
        ({"ema": -0.1}, r"ema=-0\.1 must be a finite number >= 0"),
        ({"schedule": "linear"}, "schedule='linear' is unknown"),
        ({"milestones": [0], "schedule": "step"}, "milestones=0 must be a whole number >= 1"),
        ({"milestones": [5]}, "belong to schedule='step'"),
        ({"workers": -1}, "workers=-1 must be a whole number >= 0"),
        ({"lr": float("nan")}, "lr=nan must be a finite number > 0"),
    ):
        with pytest.raises(wb.UsageError, match=message):
            TrainConfig(**settings)
    with pytest.raises(TypeError, match="nesterov='yes' must be True or False"):
        TrainConfig(nesterov="yes")


def test_fine_tuning_deviates_where_it_says():
    changed = {s.name for s in fields(TrainConfig) if getattr(FINETUNING, s.name) != s.default}
    assert changed == {"epochs", "augment", "watch", "progress"}
