"""Robust fine-tuning."""

import pytest
import torch

import waterbed as wb
from waterbed.training.run_folder import Run
from waterbed.transfer_learning import whole_network

ATTACK = wb.PGD(eps=0.5, steps=2)
SHORT = {"epochs": 2, "batch_size": 64, "precision": "fp32"}


@pytest.fixture
def source():
    return wb.create_model("resnet10", 10, width=4, in_channels=1, seed=0)


@pytest.mark.parametrize("mode", [1, 2])
def test_it_is_adversarial_training_of_what_the_mode_trains(source, digits, tmp_path, mode):
    before = {name: t.clone() for name, t in source.state_dict().items()}
    run = wb.finetune(
        source, digits, mode, tmp_path / "run", **SHORT, lr=0.1, objective=wb.AdversarialTraining(ATTACK), watch=20
    )
    assert run.config["objective"] == wb.AdversarialTraining(ATTACK).config()
    assert Run.load(tmp_path / "run").config["objective"]["name"] == "adversarial"
    assert "test_robust" in run.history[-1]
    standard = wb.finetune(source, digits, mode, **SHORT, lr=0.1)
    assert standard.config["objective"] == {"name": "standard"}
    assert not torch.equal(run.model.head.weight, standard.model.head.weight)
    frozen = torch.equal(run.model.state_dict()["backbone.conv1.weight"], before["backbone.conv1.weight"])
    assert frozen == (mode == 1)
    assert all(torch.equal(t, before[name]) for name, t in source.state_dict().items())


def test_the_rate_is_chosen_under_the_attack(source, digits, monkeypatch):
    attacked = []

    class Watching(wb.PGD):
        def __call__(self, model, x, y):
            attacked.append(model.training)
            return super().__call__(model, x, y)

    class Clean:
        """Trains on clean images, and is evaluated under an attack."""

        attack = Watching(eps=0.5, steps=1)

        def __call__(self, model, forward, x, y):
            return wb.Standard()(model, forward, x, y)

        def config(self):
            return {"name": "clean"}

    run = wb.finetune(source, digits, 2, **SHORT, lr=(0.01, 0.1), objective=Clean())
    assert len(attacked) == 2, "once for each rate"
    assert run.config["lr"] in (0.01, 0.1)


@pytest.mark.parametrize("mode", ["linear", 0])
def test_cached_modes_say_why_they_cannot(source, digits, mode):
    objective = wb.AdversarialTraining(ATTACK)
    with pytest.raises(wb.UsageError, match=r"trains on cached activations .*; pass cache='never', or mode=1 or 2"):
        wb.finetune(source, digits, mode, **SHORT, lr=0.1, objective=objective)
    run = wb.finetune(source, digits, mode, **SHORT, lr=0.1, objective=objective, cache="never")
    assert run.config["objective"]["name"] == "adversarial"
    assert run.config["finetune"]["cache"] == "none"


def test_what_makes_no_sense_is_refused(source, digits):
    with pytest.raises(TypeError, match="objective=PGD is a class"):
        wb.finetune(source, digits, 2, **SHORT, lr=0.1, objective=wb.PGD)
    with pytest.raises(wb.UsageError, match="means nothing to solver='logistic'"):
        wb.finetune(source, digits, "linear", solver="logistic", objective=wb.AdversarialTraining(ATTACK))


def test_transfer_fine_tunes_robustly(source, digits):
    settings = {**SHORT, "epochs": 1, "lr": 0.1, "objective": wb.AdversarialTraining(ATTACK)}
    table = wb.transfer({"a": source}, [digits], 2, seeds=[0], attacks=[ATTACK], num_attacked=20, **settings)
    assert ATTACK.name in table.rows[0]


class Counts:
    def __init__(self):
        self.epochs = []

    def on_epoch_end(self, job):
        self.epochs.append(job.epoch)
        job.history[-1]["mine"] = 1.0


def test_callbacks_follow_the_final_training_alone(source, digits):
    counts = Counts()
    settings = {**SHORT, "epochs": 2}
    run = wb.finetune(source, digits, 2, **settings, lr=(0.01, 0.1), search_epochs=1, callbacks=[counts])
    assert counts.epochs == [1, 2]
    assert [record["mine"] for record in run.history] == [1.0, 1.0]
    with pytest.raises(TypeError, match="lacks on_epoch_end"):
        wb.finetune(source, digits, 2, **SHORT, lr=0.1, callbacks=[print])
    with pytest.raises(wb.UsageError, match=r"callbacks=.*mode=0 trains on cached activations.*cache='never', or mode"):
        wb.finetune(source, digits, 0, **SHORT, lr=0.1, callbacks=[counts])


def test_the_search_augments_as_the_training(source, monkeypatch):
    clothes = wb.load_dataset("fashion-mini", size=8).take(40, 10)
    flips = []
    real = whole_network.fit

    def spy(model, data, *args, **kwargs):
        flips.append(data.flip)
        return real(model, data, *args, **kwargs)

    monkeypatch.setattr(whole_network, "fit", spy)
    wb.finetune(source, clothes, 2, **SHORT, lr=(0.01, 0.1), search_epochs=1, augment="auto")
    assert flips == [True] * 3
