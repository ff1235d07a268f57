"""The same answers on a CUDA device. Run with -m gpu."""

import pytest
import torch

import waterbed as wb
from waterbed.data.loading import Loader, batches
from waterbed.training import fit as fitting

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.fixture
def model():
    return wb.create_model("resnet18", 10, width=8, seed=0).double().eval()


@pytest.fixture
def images():
    return torch.rand(6, 3, 32, 32, dtype=torch.float64)


def test_measures_are_those_of_the_cpu(model, images):
    def measured():
        f = wb.WeightFisher(model, images)
        s = wb.InputFisher(model, images)
        return [f.trace(), f.log_variance(), f.lambda_max(), f.logdet(), s.trace(), s.lambda_max(), s.logdet()]

    here = measured()
    model.cuda()
    for a, b in zip(here, measured(), strict=True):
        assert b.value == pytest.approx(a.value, rel=1e-6), a.method
        assert b.stderr == pytest.approx(a.stderr, rel=1e-4, nan_ok=True), a.method


def test_training_attacks_and_evaluation(tmp_path):
    data = wb.load_dataset("digits")
    net = wb.create_model("resnet10", 10, width=8, in_channels=1, seed=0)
    objective = wb.AdversarialTraining(wb.PGD(0.3, steps=3))
    run = wb.fit(net, data, objective, tmp_path / "run", epochs=8, lr=0.2, progress=False)
    assert next(run.model.parameters()).is_cuda
    score = wb.evaluate(run.model, data.test, [wb.PGD(0.3, steps=10)])
    assert float(score.clean) > 85
    assert 0 < float(next(iter(score.robust.values()))) <= float(score.clean)
    loaded = wb.load_model(tmp_path / "run")
    assert float(wb.evaluate(loaded, data.test).clean) == pytest.approx(float(score.clean), abs=0.6)


def test_inversion_descends(model, images):
    net, x = model.float().cuda(), images.float().cuda()
    noise = wb.WeightNoise(wb.WeightFisher(net, x), 1e-8, 1e-3)
    for mode in ("plain", "variational", "effective"):
        found = wb.invert(net, x, mode, None if mode == "plain" else noise, steps=50, optimizer="adam")
        assert bool((found.final_clean_losses < found.clean_losses[0]).all()), mode
        assert found.images.is_cuda


def test_transfer_on_a_cached_trunk(model):
    digits = wb.load_dataset("digits", size=32, channels=3).take(400, 200)
    run = wb.finetune(model.float().cuda(), digits, 0, epochs=5)
    assert float(wb.evaluate(run.model, digits.test).clean) > 30


def test_a_step_of_a_training_never_waits(monkeypatch):
    """From the images, bytes on the device, to the new weights; torch raises where the host would wait."""
    step, steps = fitting.step, []

    def watched(*arguments):
        torch.cuda.set_sync_debug_mode("error" if len(steps) in (2, 3) else "default")
        step(*arguments)
        steps.append(1)

    monkeypatch.setattr(fitting, "step", watched)
    try:
        net = wb.create_model("resnet10", 10, width=8, in_channels=1, seed=0)
        wb.fit(net, wb.load_dataset("digits"), wb.AdversarialTraining(wb.PGD(0.3, steps=2)), epochs=1, progress=False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(steps) > 4


def test_images_on_the_device_are_those_of_the_cpu():
    data = wb.load_dataset("digits").train
    here, there = (list(batches(data, 100, device=device)) for device in ("cpu", "cuda"))
    with Loader(data, device="cuda", resident=True) as loader:
        resident = list(loader.batches(100))
    for (x, y), (x2, y2), (x3, y3) in zip(here, there, resident, strict=True):
        for images, labels in ((x2, y2), (x3, y3)):
            assert torch.equal(x, images.cpu())
            assert torch.equal(y, labels)


def test_a_compiled_training_is_the_eager_one():
    data = wb.load_dataset("digits").take(500, 100)
    ends = []
    for compile in (False, True):
        net = wb.create_model("resnet10", 10, width=16, in_channels=1, seed=0)
        objective = wb.AdversarialTraining(wb.PGD(0.3, steps=2, random_start=False))
        options = {"epochs": 1, "precision": "fp32", "augment": "none", "progress": False}
        ends.append(wb.fit(net, data, objective, compile=compile, **options).history[-1]["loss"])
    assert ends[1] == pytest.approx(ends[0], rel=1e-2)
