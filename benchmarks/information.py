"""Time and accuracy of the weight Fisher's measures compared with other libraries.

    python benchmarks/information.py [--threads 1] [--repeats 5] [--large 1000] [--out FILE.json]

The network is a ResNet of 78,002 weights with BatchNorm in eval mode, K = 10, on random images 32 x 32; float32. Every
repetition runs all methods in turn, so that a busy machine slows all; medians are reported. Errors are relative to the
same quantity in float64. Peers are optional: pip install nngeometry backpack-for-pytorch curvlinops-for-pytorch.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
import math
import multiprocessing
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

import waterbed as wb
from waterbed.environment import environment

PEERS = ("nngeometry", "backpack-for-pytorch", "curvlinops-for-pytorch")
NOT_INSTALLED = "not installed"
Method = Callable[[], Any]


def network(name: str = "resnet10", classes: int = 10, width: int = 8) -> nn.Module:
    """A network in eval mode, with BatchNorm statistics unlike the initial ones."""
    model = wb.create_model(name, classes, width=width, in_channels=3, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model


def images(count: int) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def diagonals(model: nn.Module, x: Tensor) -> dict[str, Method | str]:
    """The exact diagonal of F_w, all K labels, (k,)."""
    return {
        "waterbed": lambda: wb.WeightFisher(model, x).diagonal(),
        "nngeometry": nngeometry_diagonal(model, x),
        "BackPACK": backpack_diagonal(model, x),
        "torch.func vmap(jacrev)": lambda: vmap_diagonal(model, x),
    }


def nngeometry_diagonal(model: nn.Module, x: Tensor) -> Method | str:
    """PMatDiag of the closed-form Fisher, in batches of 32, which were the fastest."""
    try:
        from nngeometry.metrics import FIM
        from nngeometry.object.pspace import PMatDiag
    except ImportError:
        return NOT_INSTALLED
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=32)
    return lambda: FIM(model, loader, PMatDiag, "classif_logits").get_diag()


def backpack_diagonal(model: nn.Module, x: Tensor) -> Method | str:
    """DiagGGNExact of the mean cross-entropy, 16 examples at a time, which was the fastest; converting the
    residual network is not timed."""
    try:
        import backpack
        from backpack.extensions import DiagGGNExact
    except ImportError:
        return NOT_INSTALLED
    network_copy = copy.deepcopy(model)
    names = ["backbone", "flatten", "head"]
    chain = nn.Sequential(network_copy.backbone, nn.Flatten(), network_copy.head)
    chain = backpack.extend(chain, use_converter=True).eval()
    loss = backpack.extend(nn.CrossEntropyLoss())
    by_name = {}
    for name, parameter in chain.named_parameters():
        first, rest = name.split(".", 1)
        by_name[f"{names[int(first)]}.{rest}"] = parameter
    parameters = [by_name[name] for name, _ in model.named_parameters()]

    def diagonal() -> Tensor:
        total = 0.0
        for part in x.split(16):
            chain.zero_grad()
            with backpack.backpack(DiagGGNExact()):
                loss(chain(part), torch.zeros(len(part), dtype=torch.int64)).backward()
            total += torch.cat([p.diag_ggn_exact.flatten() for p in parameters]) * len(part)
        return total / len(x)

    return diagonal


def vmap_diagonal(model: nn.Module, x: Tensor, chunk: int = 16) -> Tensor:
    """With torch alone: the Jacobian of each example's logits, 16 examples at a time."""
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def logits(w: dict[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(model, w, (one[None],))[0]

    total = {name: torch.zeros_like(p) for name, p in weights.items()}
    for part in x.split(chunk):
        p = model(part).softmax(1).detach()
        jacobian = vmap(jacrev(logits), (None, 0))(weights, part)
        for name, j in jacobian.items():
            centred = j.flatten(2) - torch.einsum("nk,nki->ni", p, j.flatten(2))[:, None]
            total[name] += torch.einsum("nk,nki->i", p, centred.square()).view_as(total[name])
    return torch.cat([t.flatten() for t in total.values()]) / len(x)


def traces(model: nn.Module, x: Tensor) -> dict[str, Method | str]:
    """tr F_w."""
    methods: dict[str, Method | str] = {
        "waterbed, exact": lambda: wb.WeightFisher(model, x).trace().value,
        "waterbed, sampled labels": lambda: wb.WeightFisher(model, x, labels="sampled").trace().value,
    }
    estimators = {"hutchinson_trace": 30, "hutchpp_trace": 30, "xtrace": 30}
    try:
        with warnings.catch_warnings():  # a dependency uses the deprecated torch.jit
            warnings.simplefilter("ignore")
            import curvlinops
    except ImportError:
        return methods | {f"curvlinops {name}": NOT_INSTALLED for name in estimators}
    data = [(x, torch.zeros(len(x), dtype=torch.int64))]
    parameters = list(model.parameters())

    def estimate(name: str, products: int) -> float:
        operator = curvlinops.GGNLinearOperator(
            model, nn.CrossEntropyLoss(), parameters, data, check_deterministic=False, num_data=len(x)
        )
        return float(getattr(curvlinops, name)(operator, products))

    for name, products in estimators.items():
        methods[f"curvlinops {name}, {products} products"] = lambda n=name, p=products: estimate(n, p)
    return methods


def compare(methods: dict[str, Method | str], reference: Tensor, repeats: int) -> list[dict[str, Any]]:
    """One row per method: median seconds, ratio to ours, root mean square of the relative error."""
    ready = {name: method for name, method in methods.items() if not isinstance(method, str)}
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    errors: dict[str, list[float]] = {name: [] for name in ready}
    for i in range(repeats + 1):  # the first round is a warm-up
        for name, method in ready.items():
            torch.manual_seed(i)
            start = time.perf_counter()
            value = torch.as_tensor(method(), dtype=torch.float64)
            seconds[name].append(time.perf_counter() - start)
            errors[name].append(float((value - reference).norm() / reference.norm()))
    first = median(seconds["waterbed" if "waterbed" in ready else "waterbed, exact"][1:])
    rows = []
    for name, method in methods.items():
        if isinstance(method, str):
            rows.append({"method": name, "status": method})
            continue
        times = seconds[name][1:]
        error = math.sqrt(sum(e * e for e in errors[name][1:]) / repeats)
        rows.append(
            {
                "method": name,
                "seconds": median(times),
                "fastest": min(times),
                "slowest": max(times),
                "ratio": median(times) / first,
                "error": error,
            }
        )
    return rows


def timed(name: str, method: Method) -> dict[str, Any]:
    """One run of a job that no peer offers."""
    start = time.perf_counter()
    value = str(method())
    return {"method": name, "seconds": time.perf_counter() - start, "value": value}


def scale() -> list[dict[str, Any]]:
    """What the peers do not offer: the log-determinant by the Gram dual, and a thousand classes."""
    small, wide, x = network(), network(classes=1000), images(100)
    return [
        timed("log det(F_w + 0.001 I), Gram dual, N K = 1,000", lambda: wb.WeightFisher(small, x).logdet(1e-3)),
        timed("trace, sampled labels, K = 1,000, N = 100", lambda: wb.WeightFisher(wide, x, labels="sampled").trace()),
    ]


def large(count: int, threads: int) -> dict[str, Any]:
    """Diagonal and trace of a ResNet-18 with 11 M weights, in a process of its own to measure its peak memory."""
    torch.set_num_threads(threads)
    model, x = network("resnet18", width=64), images(count)
    fisher = wb.WeightFisher(model, x, progress=True)

    def both() -> wb.Estimate:
        fisher.diagonal()
        return fisher.trace()

    row = timed(f"diagonal and trace, ResNet-18 of {fisher.size:,} weights, K = 10, N = {count:,}", both)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB; bytes on macOS
    return row | {"peak_gib": peak / (2**30 if sys.platform == "darwin" else 2**20)}


def table(title: str, rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown."""
    lines = [f"### {title}", ""]
    if any("ratio" in row for row in rows):
        lines += ["| method | seconds (min - max) | ratio | relative error |", "|---|---:|---:|---:|"]
        for row in rows:
            if "status" in row:
                lines.append(f"| {row['method']} | {row['status']} | | |")
                continue
            times = f"{row['seconds']:.3f} ({row['fastest']:.3f} - {row['slowest']:.3f})"
            lines.append(f"| {row['method']} | {times} | {row['ratio']:.2f} | {row['error']:.1e} |")
    else:
        lines += ["| job | seconds | peak memory | value |", "|---|---:|---:|---|"]
        for row in rows:
            peak = f"{row['peak_gib']:.2f} GiB" if "peak_gib" in row else ""
            lines.append(f"| {row['method']} | {row['seconds']:.1f} | {peak} | {row['value']} |")
    return "\n".join([*lines, ""])


def version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return NOT_INSTALLED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--large", type=int, default=0, metavar="N", help="also a network of 11 M weights on N images")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/information.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    biggest = []
    if options.large:  # first, while this process is small: a child inherits its parent's peak
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            biggest.append(pool.apply(large, (options.large, options.threads)))
    with warnings.catch_warnings():  # those of the peers
        warnings.simplefilter("ignore")
        model, x = network(), images(64)
        exact = wb.WeightFisher(copy.deepcopy(model).double(), x.double())
        independent = vmap_diagonal(copy.deepcopy(model).double(), x.double())
        agreement = float((exact.diagonal() - independent).norm() / independent.norm())
        sections = {
            "Exact diagonal of F_w (78,002 weights, K = 10, N = 64)": compare(
                diagonals(model, x), exact.diagonal(), options.repeats
            ),
            "Trace of F_w (the same network and images)": compare(
                traces(model, x), torch.tensor(exact.trace().value), options.repeats
            ),
            "Scale": scale() + biggest,
        }
    where = {**environment(), **{name: version(name) for name in PEERS}}
    print(f"\n{where['device']}, {options.threads} thread(s), torch {where['torch']}, {options.repeats} repetitions")
    print(f"float64 reference against float64 vmap(jacrev): {agreement:.1e}\n")
    for title, rows in sections.items():
        print(table(title, rows))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"environment": where, "repeats": options.repeats, "reference_agreement": agreement, "sections": sections}
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
