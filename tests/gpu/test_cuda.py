"""The same answers on a CUDA device. Run with -m gpu."""

import pytest
import torch

import waterbed as wb

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
