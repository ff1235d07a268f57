"""For every claim, results that make it true, and their mirror image, which makes it false."""

import math
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from waterbed_paper.graph import Graph, Place
from waterbed_paper.plan import node_id, plan_nodes
from waterbed_paper.register import CLAIMS
from waterbed_paper.results import Results
from waterbed_paper.scale import Dimension, Inversions, Scale, Source, Transfers
from waterbed_paper.verdicts import Judged

PAPERS_TARGETS = ("mnist", "fashion-mnist", "svhn", "cifar10", "cifar100")
OTHERS = ("gtsrb", "digits", "stanford-cars", "stanford-dogs", "cinic-imagenet")
EVERYTHING = Scale(
    name="made-up",
    about="",
    sources=(
        Source("cifar10", "cifar10", {"0": 3, "0.5": 3, "1": 3, "2": 3}, gaussian_noise={"1": 3}),
        Source("cifar100", "cifar100", {"0": 3, "1": 3}),
        Source("deeper", "cifar100", {"0": 3, "1": 3}, larger_than="cifar100"),
        Source("imagenet", "imagenet", {"0": 3, "3": 3}),
    ),
    transfers=Transfers(
        targets=(*PAPERS_TARGETS, *OTHERS),
        eps=(0.0, 0.5, 1.0, 2.0, 3.0),
        modes={"linear": 3, "0": 3, "1": 3, "2": 3},
        epochs={"linear": 1, "0": 1, "1": 1, "2": 1},
        attack_eps=(0.5,),
    ),
    inversions=Inversions(elsewhere="gtsrb"),
    dimension=Dimension("cifar10", (16, 32)),
)
EPOCHS = 50


class InMemory(Graph):
    """Results that never were on a disk."""

    def __init__(self, nodes):
        super().__init__(nodes, Place(Path("nowhere")))
        self.results = {}

    def put(self, id, result):
        assert id in self.nodes
        self.results[id] = result

    def result(self, id):
        return self.results.get(id)


class World:
    """Results of all networks at once; ``sign`` is 1 where the claim is to be true, -1 where it is to be false."""

    def __init__(self, graph, sign):
        self.graph, self.sign = graph, sign

    def put(self, kind, result, *rest):
        """``result(network, by)`` for every network that has such an experiment; ``by`` is a little chance."""
        for source in EVERYTHING.sources:
            for network in source.networks():
                id = node_id(kind, network, *rest)
                if id in self.graph.nodes:
                    by = 0.002 * np.random.default_rng(crc32(id.encode())).standard_normal()
                    self.graph.put(id, result(network, by))

    def estimate(self, *keys, value):
        """Estimates of the experiments on theory: ``value`` of the network, the error a tenth."""
        self.put("theory", lambda n, by: {k: {"value": value(n) + by, "stderr": 0.1, "n": 50} for k in keys})

    def accuracy(self, gap, **more):
        """Test accuracy after fine-tuning: ``gap(source, target, mode)`` is the robust backbone's lead."""
        for target in EVERYTHING.transfers.targets:
            for mode in EVERYTHING.transfers.modes:

                def result(n, by, target=target, mode=mode):
                    return {"accuracy": 50 + by + n.eps * gap(n.source, target, mode)}

                self.put("transfer", result, target, f"mode-{mode}")


def measure(**slopes):
    """The logarithms of measures against eps."""

    def put(w):
        w.put("measures", lambda n, by: {k: {"value": math.exp(w.sign * s * n.eps + by)} for k, s in slopes.items()})

    return put


def theory(*keys):
    return lambda w: w.estimate(*keys, value=lambda n: w.sign)


def ratios(w):
    near, far = (1.01, 1.1) if w.sign > 0 else (1.2, 1.3)
    values = {"0.0001": near, "0.001": far}
    w.put("theory", lambda n, by: {"ratios": {k: {"value": v, "stderr": 1e-3, "n": 50} for k, v in values.items()}})


def ratio_of_training(w):
    ratio = {"value": 1.2 if w.sign > 0 else 1.8, "stderr": 0.01, "n": 50}
    w.put("theory", lambda n, by: {"training_eps": 1.0, "ratios": {"1": ratio}})


def whole_eps(w):
    hits = 299 if w.sign > 0 else 200
    other = {"hits": 300 - hits, "n": 300, "eps": 0.05}  # of the attack, which does not decide
    w.put("theory", lambda n, by: {"whole_eps": other})
    w.put("longest", lambda n, by: {"hits": hits, "n": 300, "eps": 0.05})


def gaussian_training(w):
    w.estimate("log_lambda_max", value=lambda n: w.sign * (n.objective == "gaussian-noise"))


def dimensions(w):
    for seed in range(3):
        for size in (16, 32):
            value = {"value": w.sign * math.log(size) + 0.001 * seed * size}
            w.graph.put(f"anisotropy/cifar10/size-{size}/seed-{seed}", {"log_anisotropy": value})


def example_3_3(w):
    w.graph.put("example-3.3", {"relative_difference": 1e-12 if w.sign > 0 else 1e-6})


def weights_about_data(w):
    for name in ("linear", "one-hidden-layer"):
        result = {"standard": [1.0, 1.1, 1.2], "robust": [math.exp(-w.sign * v) for v in (1.0, 1.1, 1.2)]}
        w.graph.put(f"dataset-fisher/{name}", result)


def last_norm(slope):
    return lambda w: w.put("network", lambda n, by: {"weight_norms": [30.0, 20 + w.sign * slope * n.eps + by]})


def norms_over_epochs(w):
    """The curves of the robust networks are apart from the others, or those of seeds and of training with noise."""

    def result(n, by):
        robust, noisy = n.objective == "adversarial", n.objective == "gaussian-noise"
        curve = np.linspace(1.0, 0.0, 7)
        curve[1 + n.seed] += 0.01 * n.seed + (0.0 if w.sign > 0 else 1.0)
        curve[4] += 1.0 * (robust if w.sign > 0 else noisy)
        curve[5] += by
        return {"weight_norms": [*curve]}

    w.put("network", result)


def clean_accuracy(w):
    w.put("accuracy", lambda n, by: {"clean": 90 - w.sign * n.eps + by})


def entangled(w):
    w.put("features", lambda n, by: {"soft_nearest_neighbour_loss": {"value": 1 + w.sign * n.eps + by}})


def inverted(which):
    """SSIM of plain inversions, and whether each is most like its own original."""

    def put(w):
        def result(n, by):
            shows = (n.eps > 0) == (w.sign > 0)
            return {f"{which}/plain": {"ssim": [0.3] * 16, "identified": [shows] * 16}}

        w.put("inversions", result)

    return put


def noisy_inversions(mode):
    """SSIM of a mode of inversion above (variational) or below (effective) that of plain ones."""

    def put(w):
        more = 0.1 * w.sign * (1 if mode == "variational" else -1)  # of effective images, also to noise drawn once
        ssim = {m: 0.5 + more * (m == mode) for m in ("plain", "variational", "effective")}

        def result(n, by):
            return {f"own/{m}": {"ssim": [s + by * (m == mode)] * 16} for m, s in ssim.items()} | {"noise_size": 0.3}

        w.put("inversions", result)
        other = {f"{b:g}": {"noise_size": 0.1, "ssim": [0.1] * 16} for b in EVERYTHING.inversions.other_betas}
        w.put("noise-sizes", lambda n, by: other)

    return put


def best_eps_between(w):
    ssim = {0.0: 0.2, 0.5: 0.3, 1.0: 0.4, 2.0: 0.3 if w.sign > 0 else 0.5, 3.0: 0.1}
    w.put("inversions", lambda n, by: {"own/plain": {"ssim": [ssim[n.eps] + by] * 16}})


def arms(w):
    up = [50.0, 51.0, 52.0] if w.sign > 0 else [0.5, 0.51, 0.52]
    gain = [w.sign * v for v in (1.0, 1.1, 1.2)]
    plain = {"arm": "plain", "lr": 1.0, "speed_up": [1.0] * 3, "gain_clean": [0.0] * 3, "gain_objective": [0.0] * 3}
    noisy = {"arm": "variational, beta 1e-08", "lr": 1.0, "speed_up": up, "gain_clean": gain, "gain_objective": gain}
    w.put("convergence", lambda n, by: {"arms": [plain, noisy]})


def gap(of):
    """The lead of the robust backbone on every target and in every mode: ``of(source, target, mode)``."""
    return lambda w: w.accuracy(lambda *where: w.sign * of(*where))


def against_distance(w):
    targets = EVERYTHING.transfers.targets
    for source in EVERYTHING.sources:
        for target in targets:
            if target != source.data:
                w.graph.put(f"distance/{source.name}/{target}", {"value": 1.0 + targets.index(target)})
    w.accuracy(lambda source, target, mode: w.sign * targets.index(target))


def two_sizes(w):
    """The larger network has the larger gap, of whatever sign."""
    w.accuracy(lambda source, *_: w.sign * (source == "deeper"))


def gap_by_mode(w):
    mode_0 = {1: 5.0, -1: 1.0}[w.sign]
    w.accuracy(lambda source, target, mode: mode_0 if mode == "0" else 3.0)


def accuracy_by_mode(of_source):
    def put(w):
        for target in EVERYTHING.transfers.targets:
            for mode in EVERYTHING.transfers.modes:
                w.put(
                    "transfer",
                    lambda n, by, mode=mode: {"accuracy": 50 + (mode == "1") * (w.sign * of_source(n.source) + by)},
                    target,
                    f"mode-{mode}",
                )

    return put


def curves(w):
    """The gap has its final sign in nearly every epoch, or in hardly any."""

    def result(n, by):
        final = EPOCHS - n.seed if w.sign > 0 else 3 + n.seed
        history = [-n.eps] * (EPOCHS - final) + [n.eps] * final
        return {"history": [{"test_clean": value} for value in history]}

    for target in EVERYTHING.transfers.targets:
        for mode in EVERYTHING.transfers.modes:
            w.put("transfer", result, target, f"mode-{mode}")


def robust_heads(w):
    for target in EVERYTHING.transfers.targets:
        w.put("transfer", lambda n, by: {"pgd-20 l2 eps=0.5": 30 + w.sign * n.eps + by}, target, "mode-linear")


def corrupted(w):
    def result(n, by):
        keeps = 0.7 + 0.1 * w.sign * n.eps + by
        return {"clean": 80.0 - 20 * n.eps, "corrupted": {"blur": [(80.0 - 20 * n.eps) * keeps]}, "n": 1000}

    w.put("shift", result)


CASES = {
    "prop-3.2": ratios,
    "prop-3.2-training": ratio_of_training,
    "footnote-1": whole_eps,
    "gaussian-bound": theory("lambda_max_less_mean"),
    "gaussian-dimension": dimensions,
    "gaussian-training": gaussian_training,
    "example-3.3": example_3_3,
    "input-fisher": measure(input_fisher_trace=-1, input_fisher_lambda_max=-1, input_fisher_relative_trace=-1),
    "effective-information": measure(effective_information=-1),
    "jacobian": measure(input_fisher_relative_trace=1),
    "fig-4": measure(weight_log_variance=1, weight_rescaling_invariant_trace=-1),
    "eq-11": weights_about_data,
    "fig-5-large-eps": last_norm(-1),
    "fig-5-small-eps": last_norm(1),
    "fig-5-dynamics": norms_over_epochs,
    "waterbed": clean_accuracy,
    "inversion": inverted("own"),
    "inversion-elsewhere": inverted("elsewhere"),
    "fig-1-noise-once": noisy_inversions("variational"),
    "fig-1-effective": noisy_inversions("effective"),
    "fig-2-speed": arms,
    "fig-2-forty": arms,
    "fig-2-fit": arms,
    "fig-9": best_eps_between,
    "fig-6": entangled,
    "far-tasks": gap(lambda *_: 1),
    "far-tasks-others": gap(lambda *_: 1),
    "generic-extractor": gap(lambda source, target, mode: 2 + 0.1 * EVERYTHING.transfers.targets.index(target)),
    "near-tasks": gap(lambda *_: -1),
    "table-5": gap(lambda *_: -1),
    "near-cifar10": gap(lambda *_: -1),
    "asymmetry": gap(lambda source, target, mode: 1 if source == "cifar10" else -1),
    "complex-target": gap(lambda *_: 1),
    "fig-3": against_distance,
    "fig-7": against_distance,
    "fig-8": against_distance,
    "larger-network": two_sizes,
    "larger-network-near": two_sizes,
    "fig-14": gap_by_mode,
    "batch-norm": accuracy_by_mode(lambda source: 1),
    "batch-norm-simple": accuracy_by_mode(lambda source: 1 if source == "imagenet" else 2),
    "fig-10": curves,
    "fig-11": curves,
    "fig-12": curves,
    "fig-13": curves,
    "lemma-5.1": theory("lemma", "lemma_unit_noise", "lemma_labels"),
    "robust-features": robust_heads,
    "shift": corrupted,
}


NODES = plan_nodes(EVERYTHING)


def test_every_claim_has_a_world_where_it_is_true():
    assert [*CASES] == [*CLAIMS]


@pytest.mark.parametrize("claim", CASES)
@pytest.mark.parametrize(("sign", "expected"), [(1, "holds"), (-1, "does not hold")])
def test_a_claim_holds_in_its_world_and_not_in_the_mirror(claim, sign, expected):
    """Every piece of evidence that decides says so, not only enough of them."""
    graph = InMemory(NODES)
    CASES[claim](World(graph, sign))
    judged = Judged(CLAIMS[claim], [*CLAIMS[claim].evidence(Results(EVERYTHING, graph))])
    decides = zip(judged.evidence, judged.verdicts, judged.counted, strict=True)
    deciding = {v for e, v, counts in decides if counts and not (e.weak and sign < 0)} or {"undecided"}
    assert (judged.verdict, deciding) == (expected, {expected}), [(e.label, e.value, e.low) for e in judged.evidence]
