"""The standard battery, its file, and the verdict on gradient masking."""

import hashlib
import json

import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.__main__ import main
from waterbed.attacks.balls import as_ball
from waterbed.evaluation import autoattack as autoattack_adapter
from waterbed.evaluation import gradient_masking as masking
from waterbed.evaluation import standard as robustness
from waterbed.evaluation.records import fingerprint
from waterbed.evaluation.search import Attacked
from waterbed.evaluation.standard import evaluate_standard

EPS = 0.3
NAMES = ["pgd-20 l2 eps=0.3", "pgd-100 x5 l2 eps=0.3", "autoattack l2 eps=0.3"]


class Scaled(nn.Module):
    """Logits so large that the softmax, and its gradient, saturate in float32: the same classes, no gradient."""

    def __init__(self, inside, factor):
        super().__init__()
        self.inside, self.factor = inside, factor

    def forward(self, x):
        return self.factor * self.inside(x)


class Quantised(nn.Module):
    """Pixels rounded to 8 levels: the gradient of rounding is 0."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, x):
        return self.inside((7 * x).round() / 7)


class Counting(nn.Module):
    """Counts its calls in a buffer, in eval mode too, and fails at the last one allowed."""

    def __init__(self, inside, allowed=10**9):
        super().__init__()
        self.inside, self.allowed = inside, allowed
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        self.calls += 1
        if self.calls > self.allowed:
            raise KeyboardInterrupt
        return self.inside(x)


def train(model, images, labels, steps):
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="module")
def network():
    """A network trained on the digits, 97 % right."""
    torch.manual_seed(0)
    data = wb.load_dataset("digits")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 10))
    return train(model, *wb.stack(data.train, 800), steps=100)


@pytest.fixture(scope="module")
def images():
    return wb.load_dataset("digits").take(2, 60).test


@pytest.fixture(autouse=True)
def _few_queries(monkeypatch):
    monkeypatch.setattr(robustness, "QUERIES", 300)
    random_search = masking.random_search
    monkeypatch.setattr(robustness, "random_search", lambda *a: random_search(*a, queries=300))


def state(model):
    """Hashes of weights and buffers, and every mode and flag."""
    tensors = {name: hashlib.sha256(t.numpy().tobytes()).hexdigest() for name, t in model.state_dict().items()}
    return tensors, [m.training for m in model.modules()], [(p.requires_grad, p.grad) for p in model.parameters()]


def never(model, data, **options):
    return evaluate_standard(model, data, EPS, **{"autoattack": "never", **options})


def test_an_honest_network(network, images):
    report = never(network, images)
    assert report.clean > 85
    assert report.masking.suspected is False
    assert list(report.robust) == NAMES
    first, second, last = report.robust.values()
    assert report.clean > first >= second
    assert last is None
    assert first.n == report.n == 60
    assert first.low < first < first.high
    assert str(report.masking).startswith("no sign of gradient masking")
    assert report.fell_to.count(None) == second.correct
    assert report.fell_to.count("clean") == 60 - report.clean.correct
    assert sorted(report.indices) == list(range(60))
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize("mask", ["scaled", "quantised"])
def test_a_masked_network(network, images, mask):
    masked = Scaled(network, 1e5) if mask == "scaled" else Quantised(network)
    honest, report = (evaluate_standard(m, images, 0.5, autoattack="never") for m in (network, masked))
    assert report.robust["pgd-100 x5 l2 eps=0.5"] > honest.robust["pgd-100 x5 l2 eps=0.5"] + 40, "or so it seems"
    assert honest.masking.suspected is False
    verdict = str(report.masking)
    assert verdict.startswith("gradient masking suspected")
    assert "unbounded PGD fails" in verdict
    assert "the loss is flat along its gradient: for " in verdict
    assert "a gradient-free search does better" in verdict


def test_each_check_on_counts_of_its_own():
    ok = {name: [True] * 50 for name in ("pgd-20", "pgd", "pgd-100", "2 eps", "10 eps", "unbounded")}
    ok |= {name: [False] * 50 for name in ("noise", "search", "flat")}
    assert masking.judge(ok).suspected is False
    few = {name: values[:20] for name, values in ok.items()}
    assert masking.judge(few).suspected is None
    assert "20 classified correctly, 30 needed" in str(masking.judge(few))
    assert masking.judge(few | {"flat": [True] * 20}).suspected, "few images may be enough to suspect"
    half = [True] * 25 + [False] * 25
    changes = {
        "more steps": {"pgd-100": half},
        "larger eps": {"2 eps": half},
        "unbounded PGD": {"unbounded": half},
        "noise": {"pgd-20": [False] * 50, "noise": half},
        "gradient-free": {"pgd": [False] * 50, "search": half},
        "flat": {"flat": half},
    }
    for name, change in changes.items():
        checks = masking.judge(ok | change).checks
        assert any(name in check.name and check.suspicious for check in checks), name
    assert masking.judge(ok, autoattack=(3, 40)).suspected is False
    assert "AutoAttack does better: it breaks 30 of the 40" in str(masking.judge(ok, autoattack=(30, 40)))
    assert masking.judge({}).suspected is None


def test_recorded_fingerprints_stay_valid():
    layer = nn.BatchNorm1d(2)
    layer.weight.data.copy_(torch.tensor([1.0, 2.0]))
    assert fingerprint(layer) == "3770c063d402df36"


def test_chance_is_no_sign():
    # 3 images against 1: a difference that the sign test does not see.
    evidence = {name: [True] * 50 for name in ("pgd", "2 eps", "10 eps", "unbounded")}
    evidence |= {"pgd-20": [True] * 49 + [False], "pgd-100": [False] * 3 + [True] * 47}
    evidence |= {name: [False] * 50 for name in ("noise", "search", "flat")}
    assert masking.judge(evidence).suspected is False


def test_only_unbroken_images_meet_the_next_attack(network, images, monkeypatch):
    met, seeds, broken_by = [], [], robustness.broken_by

    def counted(pgd, target, x, y):
        met.append((pgd.name, len(x)))
        seeds.append((pgd.name, torch.initial_seed()))
        return broken_by(pgd, target, x, y)

    monkeypatch.setattr(robustness, "broken_by", counted)
    report = never(network, images)
    assert met[:2] == [(NAMES[0], report.clean.correct), (NAMES[1], report.robust[NAMES[0]].correct)]
    seeds.clear()
    never(network, images, batch_size=30)
    drawn = [seed for name, seed in seeds if name == NAMES[1]]
    assert len(set(drawn)) == 2, "every batch has a seed of its own"


def test_an_evaluation_stopped_anywhere_resumes_to_the_same_result(network, images, tmp_path):
    options = {"num_samples": 50, "batch_size": 20, "seed": 3}
    whole = never(Counting(network), images, **options)
    out = tmp_path / "sub" / "e.json"
    stops = 0
    for allowed in (300, 1500, 10**9):
        model = Counting(network, allowed)
        before = state(model)
        try:
            report = never(model, images, out=out, **options)
        except KeyboardInterrupt:
            stops += 1
            done = [batch["done"] for batch in json.loads(out.read_text())["batches"]]
            assert any(done)
        assert state(model) == before
    assert stops == 2
    assert report == whole
    assert json.loads(out.read_text())["report"] == report.to_dict()
    asked = Counting(network, 20)
    assert never(asked, images, out=out, **options) == whole, "a finished one is only read"


def test_a_file_of_something_else_is_refused(network, images, tmp_path):
    out = tmp_path / "e.json"
    options = {"num_samples": 10, "out": out}
    never(network, images, **options)
    other = train(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), *wb.stack(images), steps=1)
    changed = [(1 - x, y) for x, y in images]
    for model, data, eps, more, match in (
        (other, images, EPS, {}, "weights="),
        (network, changed, EPS, {}, "other images"),
        (network, images, 0.4, {}, "eps=0.3, not 0.4"),
        (network, images, EPS, {"norm": "linf"}, "norm='l2', not 'linf'"),
        (network, images, EPS, {"seed": 1}, "seed=0, not 1"),
        (network, images, EPS, {"num_samples": 11}, "images=10, not 11"),
    ):
        with pytest.raises(wb.UsageError, match=match):
            evaluate_standard(model, data, eps, **{"autoattack": "never", **options, **more})
    for text in ("", "[]", "{}", '{"settings": {}, "autoattack": null, "batches": [3], "schema": 1}'):
        out.write_text(text)
        with pytest.raises(wb.UsageError, match="is not an evaluation"):
            never(network, images, **options)


def test_nothing_of_the_model_changes_even_after_an_exception(network, images):
    model = Counting(network)
    model.train()
    model.inside[2].eval()
    model.inside[1].weight.requires_grad_(False)
    try:
        before = state(model)
        never(model, images, num_samples=10)
        assert state(model) == before
        model.allowed = 40
        for evaluation in (never, lambda m, d: wb.evaluate(m, d, [wb.PGD(EPS, steps=60)])):
            with pytest.raises(KeyboardInterrupt):
                evaluation(model, images)
            assert state(model) == before
    finally:
        network.eval()
        network[1].weight.requires_grad_(True)


def test_the_callers_generator_is_left_alone(network, images):
    before = torch.get_rng_state()
    never(network, images, num_samples=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_bad_arguments_are_named(network, images, monkeypatch):
    for arguments, match in (
        ({"eps": 0.0}, "eps=0.0"),
        ({"eps": 1.0, "norm": "l3"}, "norm='l3'"),
        ({"eps": 1.0, "norm": as_ball("l2")}, "choose one of 'l2', 'linf'"),
        ({"eps": 1.0, "autoattack": "yes"}, "autoattack='yes'"),
        ({"eps": 1.0, "num_samples": 0}, "num_samples=0"),
        ({"eps": 1.0, "seed": -1}, "seed=-1"),
    ):
        with pytest.raises(wb.UsageError, match=match):
            evaluate_standard(network, images, **arguments)
    monkeypatch.setattr(autoattack_adapter, "installed", lambda: None)
    with pytest.raises(wb.UsageError, match=r"pip install 'waterbed\[autoattack\]'"):
        evaluate_standard(network, images, EPS, autoattack="always")
    with pytest.raises(wb.UsageError, match="without a gradient"):
        never(Detached(), images)
    with pytest.raises(wb.UsageError, match="labels from"):
        never(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), images)


class Detached(nn.Module):
    def forward(self, x):
        return x.detach().flatten(1)


def test_an_absent_package_is_reported(network, images, monkeypatch):
    monkeypatch.setattr(autoattack_adapter, "installed", lambda: None)
    report = evaluate_standard(network, images, EPS, num_samples=5)
    assert report.robust[NAMES[2]] is None
    assert report.notes[NAMES[2]] == "not run (pip install 'waterbed[autoattack]')"
    assert str(report.masking).startswith("undecided (too few examples")


def fake_part(breaks):
    """A part of AutoAttack that breaks the first so many of the images it meets."""

    def run_part(part, model, x, y, eps, norm, seed, queries=5000):
        broken = torch.arange(len(x)) < (0 if queries < 5000 else breaks)
        return broken, [f"{part} saw a zero gradient"] if part == "apgd-t" else []

    return run_part


def test_autoattack_that_is_installed_later_is_added(network, images, tmp_path, monkeypatch):
    options = {"num_samples": 40, "batch_size": 25, "out": tmp_path / "e.json"}
    monkeypatch.setattr(autoattack_adapter, "installed", lambda: None)
    without = evaluate_standard(network, images, EPS, **options)
    monkeypatch.setattr(autoattack_adapter, "installed", lambda: "pyautoattack 0")
    monkeypatch.setattr(autoattack_adapter, "run_part", fake_part(1))
    report = evaluate_standard(network, images, EPS, **options)
    assert [report.robust[name] for name in NAMES[:2]] == [without.robust[name] for name in NAMES[:2]]
    assert report.robust[NAMES[2]].correct == report.robust[NAMES[1]].correct - 4 * 2  # four parts, two batches
    assert report.notes[NAMES[2]].startswith("apgd-ce broke 2, apgd-t broke 2, fab-t broke 2, square broke 2")
    assert "saw a zero gradient" in report.notes[NAMES[2]]
    assert len(report.masking.checks) == 7
    monkeypatch.setattr(autoattack_adapter, "installed", lambda: None)
    with pytest.raises(wb.UsageError, match="pyautoattack 0, now AutoAttack is left out"):
        evaluate_standard(network, images, EPS, **options)


def test_the_command_shows_the_battery_and_the_evidence(tmp_path, capsys):
    model = wb.create_model("resnet10", 10, width=2, in_channels=1)
    wb.fit(model, wb.load_dataset("digits").take(32, 8), out=tmp_path / "run", objective=wb.Standard(), epochs=1)
    words = f"evaluate {tmp_path}/run --data digits --attacks standard --autoattack never --num-samples 8 --eps 0.1 0.2"
    capsys.readouterr()
    assert main([*words.split(), "--out", f"{tmp_path}/e.json"]) == 0
    shown = capsys.readouterr().out
    for text in ("PGD-100 x5", "not run (autoattack='never')", "run, eps=0.2: undecided", "noise does better?"):
        assert text in shown
    content = json.loads((tmp_path / "e.json").read_text())
    assert [report["eps"] for report in content["run"]] == [0.1, 0.2]
    single = json.loads((tmp_path / "e.run.l2-0.2.json").read_text())
    assert single["report"] == content["run"][1]
    assert main(f"evaluate {tmp_path}/run --attacks standart".split()) == 2
    assert "did you mean 'standard'" in capsys.readouterr().err


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_autoattack_itself_on_any_number_of_classes(norm, classes):
    pytest.importorskip("pyautoattack")
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, classes)).requires_grad_(False).eval()
    x = torch.rand(20, 1, 6, 6)
    logits = model(x)
    y = logits.argmax(1)
    # The distance of a linear classifier's boundary, in the dual norm of its weights.
    dual = 2 if norm == "l2" else 1
    distances = torch.stack(
        [
            (logits.max(1).values - logits[:, k]) / (model[1].weight[y] - model[1].weight[k]).norm(dual, 1)
            for k in range(classes)
        ],
        1,
    )
    distance = distances.masked_fill(torch.isnan(distances), torch.inf).amin(1)
    eps = float(distance.median())
    parts, missing = autoattack_adapter.parts(classes, (1, 6, 6), norm)
    assert bool(missing) == (classes < 4)
    state_before = torch.random.get_rng_state()
    for part in parts:
        with torch.random.fork_rng():  # the package seeds the global generator
            broken, warnings = autoattack_adapter.run_part(
                part, Attacked(model, model), x, y, eps, norm, 0, queries=100
            )
        assert not bool((broken & (distance > eps * 1.001)).any()), f"{part} left the ball"
        if part in ("apgd-ce", "apgd-t", "fab-t"):
            assert int(broken.sum()) >= 7, f"{part} finds what there is, but for images at the edge of the box"
        assert not any("classes" in warning for warning in warnings)
    assert torch.equal(state_before, torch.random.get_rng_state())
