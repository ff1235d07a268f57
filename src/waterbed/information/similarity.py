"""How similar the representations of two networks are: centred kernel alignment."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from waterbed.errors import UsageError
from waterbed.information.estimate import Estimate, mean_estimate, pseudo_values
from waterbed.information.geometry import check_features


def cka(first: Tensor, second: Tensor) -> Estimate:
    """Linear centred kernel alignment of two representations of the same N images, (N, d) and (N, e).

    Kornblith et al. (2019), "Similarity of neural network representations revisited", with the unbiased estimate of the
    HSIC (Song et al. 2012, eq. 5) in each of its three places, as in Nguyen et al. (2021): 1 for representations equal
    up to rotation, scale and shift, near 0 for unrelated ones also where N is below d (where the biased estimate is
    near 1), and perhaps slightly negative. The bias of order 1 / N of the ratio is taken out by the jackknife over
    examples, whose error it has. Float64; memory of a copy of both and of d^2 + d e + e^2, time
    N (d + e)^2.

    What do two networks keep alike? Jones et al. (2022), "If you've trained one you've trained them all:
    inter-architecture similarity increases with robustness", compare on images that hold what one of them sees and
    nothing else: its inversions. That is ``cka(a.features(x), b.features(x))`` with
    ``x = wb.invert(a, images).images``.

    Args:
        first, second: features of the same images in the same order, N >= 5.

    Raises:
        UsageError: different or too few images, features that are not finite, or constant.

    >>> x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    >>> turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)))[0]
    >>> round(cka(x, 3 * x @ turn + 1).value, 6)
    1.0
    """
    first, second = check_features(first, "first"), check_features(second, "second").to(first.device)
    n = len(first)
    if n != len(second) or n < 5:
        raise UsageError(f"first has {n} rows and second {len(second)}; pass the same images to both, 5 or more")
    scaled = []
    for name, z in (("first", first), ("second", second)):
        centred = z - z.mean(0)  # HSIC does not change; less is lost to rounding
        if float(centred.norm()) <= 1e-12 * float(z.norm()):
            raise UsageError(f"{name} has features that are the same for all images; pass others")
        scaled.append(centred / centred.norm() * math.sqrt(n))
    x, y = scaled
    xy, xx, yy = _hsic(x, y), _hsic(x, x), _hsic(y, y)
    values = xy / (xx * yy).clamp_min(torch.finfo(x.dtype).tiny).sqrt()
    return mean_estimate(pseudo_values(values[0], values[1:]), "1", "linear CKA, unbiased HSIC, jackknife")


def _hsic(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased HSIC of linear kernels, of all N examples and without each: (1 + N,).

    With K, L the kernels with 0 on the diagonal, r = K 1, s = L 1, it is

        [tr K L + (1^T r) (1^T s) / ((n - 1) (n - 2)) - 2 r^T s / (n - 2)] / (n (n - 3)).

    Without example i, tr K L loses 2 t_i, t_i = sum_j K_ij L_ij; 1^T r loses 2 r_i; and r^T s becomes
    r^T s - r_i s_i - (L r)_i - (K s)_i + t_i. All come from products of the size of x^T y: no (N, N).
    """
    n = len(x)
    a, b = x.square().sum(1), y.square().sum(1)
    r, s = x @ x.sum(0) - a, y @ y.sum(0) - b
    t = ((x @ (x.mT @ y)) * y).sum(1) - a * b
    kernel_s, kernel_r = x @ (x.mT @ s) - a * s, y @ (y.mT @ r) - b * r
    total = torch.cat([t.sum()[None], t.sum() - 2 * t])
    sums_r = torch.cat([r.sum()[None], r.sum() - 2 * r])
    sums_s = torch.cat([s.sum()[None], s.sum() - 2 * s])
    rs = r @ s
    product = torch.cat([rs[None], rs - r * s - kernel_r - kernel_s + t])
    m = torch.full_like(total, n - 1.0)
    m[0] = n
    return (total + sums_r * sums_s / ((m - 1) * (m - 2)) - 2 * product / (m - 2)) / (m * (m - 3))
