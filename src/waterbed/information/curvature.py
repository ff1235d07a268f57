"""How good the quadratic approximation of Prop. 3.2 is at a finite eps, for adversarial and for Gaussian noise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waterbed.devices import seeded_generator
from waterbed.errors import UsageError, check_choice, check_count, check_number
from waterbed.information.checks import check_inputs
from waterbed.information.estimate import Estimate, mean_estimate, probe_estimate
from waterbed.information.input_fisher import InputFisher
from waterbed.information.likelihood import softmax_root
from waterbed.information.per_example import input_rows
from waterbed.models.states import frozen


def kl_curvature_ratio(
    model: nn.Module, inputs: Tensor, eps: float, steps: int = 20, chunk_size: int = 256, of: str = "ratios"
) -> Estimate:
    """max_{|d| = eps} KL(p(y|x + d) || p(y|x)) over (eps^2 / 2) lambda_1(S(z|x)), mean over x: Prop. 3.2 (eq. 5).

    It tends to 1 as eps -> 0, with an error of order eps; at the eps of adversarial training it is far from 1. Label
    model, inputs not clamped; the maximum is sought by projected gradient ascent on the sphere from +v_1 and -v_1, so
    the ratio is a lower bound.

    Args:
        inputs: (N, ...).
        eps: > 0, in units of the inputs.
        steps: of the ascent, each 2.5 eps / steps long.
        of: "ratios" takes their mean over x, in which inputs with a tiny lambda_1 may count most at a large eps;
            "means" the mean KL over the mean of the quadratic form, with the error of the linearised ratio.

    Raises:
        UsageError: S(z|x) is 0 at every input. Where it is 0 at some, these are left out and the method says so.
    """
    check_number("eps", eps, above=0)
    check_count("steps", steps)
    check_choice("of", of, ("ratios", "means"))
    inputs, _ = check_inputs(model, inputs)
    largest, tops = [], []
    with frozen(model):
        for x in inputs.split(chunk_size):
            rows = input_rows(model, x, softmax_root).double().flatten(2)
            _, values, directions = torch.linalg.svd(rows, full_matrices=False)
            top = values[:, 0].square()
            v = directions[:, 0].to(x.dtype).view_as(x)
            most = torch.maximum(*(_ascend(model, x, sign * v, eps, steps) for sign in (1, -1)))
            largest.append(most)
            tops.append(top)
    defined, remark = _defined(torch.cat(tops))
    what = f"largest KL found over its quadratic form, label, eps {eps:g}{remark}"
    kl, form = torch.cat(largest)[defined], eps**2 / 2 * torch.cat(tops)[defined]
    if of == "ratios":
        return mean_estimate(kl / form, "1", what)
    ratio = kl.mean() / form.mean()
    return mean_estimate(ratio + (kl - ratio * form) / form.mean(), "1", f"{what}, ratio of means")


def gaussian_curvature_ratio(
    model: nn.Module, inputs: Tensor, eps: float, num_probes: int = 100, seed: int = 0, chunk_size: int = 256
) -> Estimate:
    """E_d KL(p(y|x + d) || p(y|x)) over (eps^2 / 2n) tr S(z|x), d ~ N(0, eps^2 / n I), n = dim x; mean over x.

    The counterpart of :func:`kl_curvature_ratio` for Gaussian noise (sec. 3), from ``num_probes`` draws for each input.
    """
    check_number("eps", eps, above=0)
    check_count("num_probes", num_probes, at_least=2)
    inputs, _ = check_inputs(model, inputs)
    size = inputs[0].numel()
    expected = eps**2 / (2 * size) * InputFisher(model, inputs, "label").per_example_trace()
    defined, remark = _defined(expected)
    generator = seeded_generator(seed)
    draws = []
    with frozen(model), torch.no_grad():
        for _ in range(num_probes):
            noise = torch.randn(inputs.shape, generator=generator, dtype=torch.float64).to(inputs)
            moved = inputs + eps / size**0.5 * noise
            parts = zip(inputs.split(chunk_size), moved.split(chunk_size), strict=True)
            draws.append(torch.cat([_kl(model(b), model(a)) for a, b in parts]))
    samples = torch.stack(draws, dim=1)[defined] / expected[defined, None]
    return probe_estimate(samples, "1", f"mean KL over its quadratic form, label, eps {eps:g}{remark}", seed)


def _defined(curvatures: Tensor) -> tuple[Tensor, str]:
    """Which inputs have a ratio (S is not 0 there), and a remark for the method on those that do not."""
    defined = curvatures > 0
    if not bool(defined.any()):
        raise UsageError("inputs has no example whose prediction depends on x (S = 0 for all); pass others")
    left_out = int((~defined).sum())
    return defined, f", {left_out} inputs with S = 0 left out" if left_out else ""


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL of each example between the softmax of two logits (N, K), float64."""
    p, q = (F.log_softmax(t.double(), dim=1) for t in (p, q))
    return (p.exp() * (p - q)).sum(1)


def _ascend(model: nn.Module, x: Tensor, direction: Tensor, eps: float, steps: int) -> Tensor:
    """The largest KL reached while ascending on the sphere |d| = eps, (N,)."""

    def unit(d: Tensor) -> Tensor:
        norms = d.flatten(1).norm(dim=1).clamp_min(torch.finfo(d.dtype).tiny)
        return d / norms.view(-1, *[1] * (d.ndim - 1))

    with torch.no_grad():
        clean = model(x)
    d, best = eps * unit(direction), torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for step in range(steps + 1):
        d.requires_grad_()
        with torch.enable_grad():
            kl = _kl(model(x + d), clean)
        best = torch.maximum(best, kl.detach())
        if step < steps:
            (gradient,) = torch.autograd.grad(kl.sum(), d)
            d = eps * unit(d.detach() + 2.5 * eps / steps * unit(gradient))
    return best
