"""Properties that hold for every eps, step, value and setting, tried on drawn ones (the same ones each time)."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.attacks.balls import BALLS, as_ball
from waterbed.attacks.radius import parse_eps
from waterbed.information.estimate import mean_estimate
from waterbed.training.config import TrainConfig

hypothesis = pytest.importorskip("hypothesis")
given, st = hypothesis.given, hypothesis.strategies
few = hypothesis.settings(derandomize=True, max_examples=20, deadline=None, database=None)

norms = st.sampled_from(sorted(BALLS))
radii = st.one_of(st.just(0.0), st.floats(1e-8, 1e4), st.sampled_from([1e-30, 1e30, 1e308]))
seeds = st.integers(0, 2**32 - 1)


def length(delta, norm):
    return torch.linalg.vector_norm(delta.double().flatten(1), {"l1": 1, "l2": 2, "linf": math.inf}[norm], dim=1)


def drawn(seed, scale=1.0, n=3):
    return scale * torch.randn(n, 1, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3))


@few
@given(norm=norms, eps=radii, step=st.one_of(st.none(), st.floats(1e-6, 1e6)), steps=st.integers(1, 4), seed=seeds)
def test_attacks_stay_in_the_ball_and_in_the_box(norm, eps, step, steps, seed):
    torch.manual_seed(seed)
    x, y = torch.rand(3, 1, 3, 4), torch.tensor([0, 1, 2])
    with pytest.warns(wb.errors.UsageWarning) if norm == "linf" and eps > 1 else _nothing():
        attack = wb.PGD(eps, norm, steps, step)
    x_adv = attack(network(seed % 1000), x, y)
    assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1
    assert bool((length(x_adv - x, norm) <= eps * (1 + 1e-5) + 12 * 1.2e-7).all())


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


@few
@given(norm=norms, eps=st.floats(0.01, 1), steps=st.integers(1, 4), restarts=st.integers(2, 4), seed=seeds)
def test_more_restarts_never_help_the_network(norm, eps, steps, restarts, seed):
    torch.manual_seed(seed)
    x, y, model = torch.rand(6, 1, 3, 4), torch.arange(6) % 3, network(seed % 1000)

    def reached(n):
        torch.manual_seed(seed)
        logits = model(wb.PGD(eps, norm, steps, restarts=n)(model, x, y))
        return logits.argmax(1) != y, nn.functional.cross_entropy(logits, y, reduction="none")

    with torch.no_grad():
        (few_broken, few_loss), (broken, loss) = reached(1), reached(restarts)
    assert bool((broken | ~few_broken).all())
    assert bool(((loss >= few_loss - 1e-6) | (broken & ~few_broken)).all())


@few
@given(norm=norms, eps=st.floats(0, 10), scale=st.floats(1e-3, 1e3), seed=seeds)
def test_projections_are_those_onto_a_convex_set(norm, eps, scale, seed):
    """Idempotent, non-expansive, and at an obtuse angle to every point of the ball: so the nearest point."""
    project = as_ball(norm).project
    a, b = drawn(seed, scale), drawn(seed ^ 1, scale)
    p, q = project(a, eps), project(b, eps)
    size = 1 + scale
    assert bool((length(p, norm) <= eps * (1 + 1e-9) + 1e-12).all())
    torch.testing.assert_close(project(p, eps), p, rtol=1e-9, atol=1e-9 * size)
    assert bool((length(p - q, "l2") <= length(a - b, "l2") + 1e-9 * size).all())
    assert bool((((a - p) * (q - p)).flatten(1).sum(1) <= 1e-8 * size**2).all())
    inside = drawn(seed ^ 2)
    inside = 0.99 * eps * inside / length(inside, norm).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(project(inside, eps), inside)


@few
@given(norm=norms, eps=st.floats(0, 10), seed=seeds)
def test_random_starts_lie_in_the_ball_and_directions_have_length_one(norm, eps, seed):
    torch.manual_seed(seed)
    ball, x = as_ball(norm), drawn(seed)
    assert bool((length(ball.random_start(x, eps), norm) <= eps * (1 + 1e-9)).all())
    torch.testing.assert_close(length(ball.direction(x), norm), torch.ones(3, dtype=torch.float64))


values = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20)


@few
@given(values=values, scale=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3), level=st.floats(0.01, 0.99))
def test_estimates_follow_scale_and_shift(values, scale, shift, level):
    x = torch.tensor(values, dtype=torch.float64)
    e, f = mean_estimate(x, "nats", "exact"), mean_estimate(scale * x + shift, "nats", "exact")
    near = {"rel": 1e-6, "abs": 1e-6 * (1 + scale) * (1 + abs(shift))}
    assert e.n == f.n == len(values)
    assert f.value == pytest.approx(scale * e.value + shift, **near)
    assert f.stderr == pytest.approx(scale * e.stderr, **near)
    assert f.interval(level) == pytest.approx([scale * end + shift for end in e.interval(level)], **near)
    low, high = e.interval(level)
    assert low <= e.value <= high


def setting(field):
    """Valid values of one setting of a training, by its type and range."""
    valid = field.metadata
    least, below = valid.get("at_least", valid.get("above")), valid.get("below")
    if field.type == "int":
        return st.integers(least, (below or 2**40) - 1)
    if field.type.startswith("float"):
        above = "above" in valid
        return st.floats(least, below or 1e30, exclude_min=above, exclude_max=below is not None)
    if field.type == "bool":
        return st.booleans()
    if field.type == "str":
        return st.sampled_from(valid["choices"])
    return st.just(field.default)


configs = st.fixed_dictionaries({}, optional={f.name: setting(f) for f in fields(TrainConfig)})


@few
@given(settings=configs)
def test_a_config_survives_a_file(settings, tmp_path_factory):
    import tomli_w

    from waterbed.cli.options import from_config, values_of
    from waterbed.cli.train import Train

    config = TrainConfig(**settings)
    path = tmp_path_factory.getbasetemp() / "config.toml"
    path.write_text(tomli_w.dumps({"data": "digits", "out": "o", **settings}))
    assert TrainConfig(**values_of(TrainConfig, from_config(Train, path))) == config
    assert replace(config) == config


@few
@given(top=st.floats(0, 1e6), bottom=st.integers(1, 10**6), spaces=st.sampled_from(["", " ", "  "]))
def test_radii_read_as_they_are_written(top, bottom, spaces):
    assert parse_eps(f"{spaces}{top!r}{spaces}/{spaces}{bottom}{spaces}") == top / bottom
    assert parse_eps(repr(top)) == parse_eps(top) == top


@few
@given(text=st.text(max_size=12))
def test_other_text_is_no_radius(text):
    try:
        value = parse_eps(text)
    except wb.UsageError as error:
        message = str(error)
    else:
        message = f"eps={value}"
        assert math.isfinite(value)
        assert value >= 0
    assert "eps=" in message
    assert "\n" not in message
