"""The convergence study: arms, tuning, thresholds, and a case whose answer is known."""

import json

import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.inversion.study import Arm, Curves, arms, convergence, convergence_table, study_convergence, tuned_rate


def curves(name, clean):
    clean = torch.as_tensor(clean)
    return Curves(name, 0.1, 0.0, 2 * clean, clean)


def test_thresholds_are_counted_from_the_start():
    c = curves("plain", [[[1.0, 1.0], [0.5, 0.9], [0.09, 0.8]], [[0.05, 1.0], [0.04, 0.1], [0.03, 0.2]]])
    assert c.iterations_to(0.1).tolist() == [[2, torch.inf], [0, 1]]
    assert c.iterations_to(0.1, clean=False).tolist() == [[torch.inf, torch.inf], [0, torch.inf]]


def test_the_log_ratio_is_paired_by_image():
    plain = curves("plain", [[[1.0, 1.0], [0.1, 0.4]]])
    half = curves("half", [[[1.0, 1.0], [0.05, 0.2]]])
    ratio = half.final_log_ratio(plain)
    assert ratio.value == pytest.approx(torch.tensor(0.5).log().item())
    assert ratio.stderr == pytest.approx(0, abs=1e-6)
    assert ratio.n == 2


def test_the_table_says_what_never_came():
    plain = curves("plain", [[[1.0, 1.0], [0.05, 0.2]]])
    columns, rows = convergence_table([plain])
    assert rows[0][columns.index("to 10 %")] == "1 (50 %)"
    assert rows[0][columns.index("to 0.3 %")] == "never"


def quadratic():
    """Features are the pixels, so sgd at rate 1/2 arrives in one step and at 1 never."""
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(16, 16, bias=False))
    backbone[1].weight.data = torch.eye(16)
    return wb.FeatureClassifier(backbone, nn.Linear(16, 2))


def test_the_tuned_rate_is_the_best_of_the_grid():
    model, x = quadratic(), torch.rand(3, 1, 4, 4)
    rate = tuned_rate(model, Arm("plain", "plain", None), x, 20, "sgd", {})
    others = [rate / 4, rate * 4]
    reached = {r: float(wb.invert(model, x, steps=20, lr=r, seed=1000).final_losses.mean()) for r in (rate, *others)}
    assert min(reached, key=reached.get) == rate
    with pytest.raises(wb.UsageError, match="lbfgs"):
        convergence(model, None, x, x, optimizer="lbfgs")


def test_the_arms_share_the_size_of_their_noise(convnet):
    fisher = wb.WeightFisher(convnet, torch.rand(4, 1, 6, 6, dtype=torch.float64))
    made = arms(fisher, (1e-8, 1e-4, 1e-6), 1e-3)
    assert [a.mode for a in made] == ["plain", *["variational"] * 3, "effective", "variational"]
    effective, isotropic = made[-2].noise, made[-1].noise
    assert effective.beta == isotropic.beta == 1e-6
    assert effective.relative_size() == isotropic.relative_size()
    with pytest.raises(wb.UsageError, match="betas"):
        arms(fisher, (), 1e-3)


def test_isotropic_noise_has_the_diagonal_s_total_variance_evenly(convnet):
    fisher = wb.WeightFisher(convnet, torch.rand(4, 1, 6, 6, dtype=torch.float64))
    noise = wb.WeightNoise(fisher, 1e-5, 1e-2, "isotropic")
    draws = torch.stack([noise.draw(seed) for seed in range(400)])
    total = (1e-5 / (fisher.diagonal() + 1e-3)).sum()
    assert float(draws.square().sum(1).mean()) == pytest.approx(float(total), rel=0.05)
    variances = draws.var(0)
    assert float(variances.max() / variances.min()) < 3


def test_the_accuracy_under_noise_has_both_errors(convnet):
    x = torch.rand(40, 1, 6, 6, dtype=torch.float64)
    y = convnet(x).argmax(1)
    fisher = wb.WeightFisher(convnet, x[:4])
    little, much = (wb.WeightNoise(fisher, beta, 10.0).accuracy(x, y) for beta in (1e-14, 1.0))
    assert little.value > much.value
    assert much.probe_stderr > 0
    assert (much.unit, much.n) == ("%", 40)
    none = wb.WeightNoise(fisher, 1e-30, 1e-30).accuracy(x, y)
    assert (none.value, none.stderr, none.probe_stderr) == (100.0, 0.0, 0.0)


def test_the_study_writes_its_record_and_picture(tiny, digits, tmp_path):
    settings = {"betas": (1e-8, 1e-6), "steps": 6, "seeds": (0, 1)}
    found = study_convergence(tiny, digits, tmp_path, "tiny", num_images=3, num_held_out=2, num_samples=8, **settings)
    assert [c.losses.shape for c in found] == [(2, 7, 3)] * 5
    record = json.loads((tmp_path / "convergence-tiny.json").read_text())
    assert [a["arm"] for a in record["arms"]] == [c.name for c in found]
    assert record["arms"][0]["final_log_ratio_to_plain"] is None
    assert len(record["arms"][1]["iterations"]["clean 0.1"]) == 6
    assert (tmp_path / "convergence-tiny.png").read_bytes()[:4] == b"\x89PNG"
