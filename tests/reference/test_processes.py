"""Two gloo processes give the results of one."""

import json
import os
import subprocess
import sys
import warnings
from unittest.mock import patch

import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.evaluation import standard

SCRIPT = """
import json, sys
import torch.distributed as dist
import waterbed as wb
import test_processes

rank = int(sys.argv[2])
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=2)
print(json.dumps(getattr(test_processes, sys.argv[3])(*sys.argv[4:])))
dist.destroy_process_group()
"""


def in_two_processes(folder, function, *words):
    """What each of two processes returns from a function of this module, called with text."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])}
    (folder / "meeting").unlink(missing_ok=True)
    started = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder / "meeting"), str(rank), function.__name__, *map(str, words)],
            env={**environment, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    return [json.loads(process.communicate(timeout=300)[0].splitlines()[-1]) for process in started]


def measures():
    """A number from every kind of pass over the examples."""
    torch.manual_seed(0)
    model = wb.create_model("resnet10", 4, width=2, in_channels=1, seed=0).double()
    x = torch.rand(5, 1, 8, 8, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 3, 0])
    found = {}
    for chunk in (1, 2, 5):
        f = wb.WeightFisher(model, x, y, chunk_size=chunk)
        s = wb.InputFisher(model, x, "label", chunk_size=chunk)
        h = wb.InputFisher(model, x, "gaussian", method="hutchinson", chunk_size=chunk)
        found |= {
            f"{chunk} trace": f.trace(),
            f"{chunk} log-variance": f.log_variance(),
            f"{chunk} lambda": f.lambda_max(),
            f"{chunk} logdet gram": f.logdet(method="gram"),
            f"{chunk} logdet lanczos": f.logdet(method="lanczos", num_probes=2, steps=5),
            f"{chunk} complexity": f.complexity(1e-4, 1e-3, num_samples=3),
            f"{chunk} input trace": s.trace(),
            f"{chunk} input lambda": s.lambda_max("mean"),
            f"{chunk} input logdet": s.logdet(),
            f"{chunk} hutchinson": h.trace(),
            f"{chunk} relative": h.relative_trace(),
            f"{chunk} effective": wb.effective_information(model, x, f, 1e-4, 1e-3),
        }
    return {name: [e.value, e.stderr] for name, e in found.items()}


def test_two_processes_and_any_chunks_give_the_estimates_of_one(tmp_path):
    alone = measures()
    together = in_two_processes(tmp_path, measures)
    assert together[0] == together[1]
    for name, value in alone.items():
        assert together[0][name] == pytest.approx(value, rel=1e-9, nan_ok=True), name
        assert value == pytest.approx(alone[f"2 {name.split(' ', 1)[1]}"], rel=1e-9, nan_ok=True), name


def attacks(weights, out):
    """The standard attacks and an attack that leaves its ball, on a network whose weights are in a file."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model.load_state_dict(torch.load(weights))
    images = wb.load_dataset("digits").take(2, 24).test
    parts = patch.object(standard.autoattack_adapter, "parts", lambda *_: (["apgd-ce"], ""))
    with parts, patch.multiple(standard, CHECKED=20, QUERIES=30):  # reached within the last batch
        report = wb.evaluate_standard(model, images, 0.3, out=out, batch_size=6)

    def leaves_in_odd_classes(model, x, y):
        return (x + 0.2 * (y % 2)[:, None, None, None]).clamp(0, 1)

    leaving = wb.as_attack(leaves_in_odd_classes, name="leaving", eps=0.1, norm="linf")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", wb.errors.UsageWarning)
        score = wb.evaluate(model, images, [leaving], batch_size=6).to_dict()
    lines = [str(warning.message) for warning in caught]
    return [report.to_dict(), report.fell_to, report.indices, str(report.masking), score, lines]


def test_two_processes_share_the_attacks_with_the_result_of_one(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    x, y = wb.stack(wb.load_dataset("digits").train, 400)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    weights, out = tmp_path / "weights.pt", tmp_path / "one.json"
    torch.save(model.state_dict(), weights)
    alone = json.loads(json.dumps(attacks(weights, out)))
    written = json.loads(out.read_text())
    assert [len(batch["evidence"]["pgd"]) for batch in written["batches"]][3] in (2, 3, 4)
    assert alone[4]["outside"]["leaving"] > 5
    # They go on from what one process had done when it was stopped.
    stopped = tmp_path / "two.json"
    stopped.write_text(json.dumps({**written, "report": None, "batches": written["batches"][:1]}))
    assert in_two_processes(tmp_path, attacks, weights, stopped) == [alone, alone]
    assert json.loads(stopped.read_text()) == written


TRAINING = """
import atexit, json, os, sys
import torch

# Registered first, so it runs last: gloo's threads must be gone before the interpreter ends.
atexit.register(lambda: os._exit(3) if torch.distributed.is_initialized() else None)
from torch import nn
import waterbed as wb
from waterbed.distributed import summed

torch.set_num_threads(1)
torch.manual_seed(0)
data = wb.load_dataset("digits").take(256, 100)
backbone = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 16), nn.ReLU())
model = wb.FeatureClassifier(backbone, nn.Linear(16, 10))
several = int(os.environ.get("WORLD_SIZE", "1"))
objective = wb.AdversarialTraining(wb.PGD(0.3, steps=2, random_start=False))
run = wb.fit(model, data, objective, sys.argv[1], epochs=2, batch_size=64 // several, augment="none", watch=50,
             precision="fp32", ema=0.8, progress=False)
features, labels = wb.extract_features(run.model, data, "test")
score = wb.evaluate(run.model, data.test, [wb.PGD(0.3, steps=3)], batch_size=16)
normed = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)
normed = wb.fit(normed, data, epochs=1, batch_size=32, watch=0, ema=0.8, progress=False).model
values = torch.cat([t.double().flatten() for t in normed.state_dict().values()])
assert torch.equal(summed(values), several * values), "batch norms included"
if os.environ.get("RANK", "0") == "0":
    print(json.dumps([run.history[-1], run.config["processes"], features.sum(0).tolist(), labels.tolist(),
                      score.to_dict()]))
"""


def test_two_processes_train_and_evaluate_as_one(tmp_path):
    """A network without batch norm, so that statistics of a batch do not matter."""
    script = tmp_path / "script.py"
    script.write_text(TRAINING)
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    results = []
    for words in ([sys.executable, str(script)], launch):
        done = subprocess.run(
            [*words, str(tmp_path / f"run{len(results)}")], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-2000:]
        results.append(json.loads(done.stdout.splitlines()[-1]))
    (one, count, sums, labels, score), (two, twice, their_sums, their_labels, their_score) = results
    assert (count, twice) == (1, 2)
    for key in ("loss", "train_accuracy", "test_clean", "test_robust", "weight_norm"):
        assert two[key] == pytest.approx(one[key], rel=1e-5), key
    assert their_sums == pytest.approx(sums, rel=1e-4)
    assert their_labels == labels
    assert their_score == score


class InDoubles(nn.Module):
    """A network with a batch norm of each kind, in float64."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        first = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
        last = [nn.Linear(144, 8), nn.BatchNorm1d(8, momentum=None, affine=False), nn.ReLU(), nn.Linear(8, 10)]
        self.layers = nn.Sequential(*first, *last).double()

    def forward(self, x):
        return self.layers(x.double())


def normed():
    """Weights and statistics after a training and after one that perturbs weights, and the gradient of a last step.

    The first also with batch norms of each process's own.
    """
    several = torch.distributed.is_initialized()
    if several:
        rank = torch.distributed.get_rank()
        os.environ.update(WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2")
        torch.set_num_threads(1)
    data = wb.load_dataset("digits").take(64, 10)
    settings = {"epochs": 2, "batch_size": 8 if several else 16, "augment": "none", "lr": 0.05, "watch": 0}
    adversarial = wb.AdversarialTraining(wb.PGD(0.3, steps=2, random_start=False))
    found = {}
    for name, objective in (("joint", adversarial), ("awp", wb.AWP(adversarial, gamma=0.1)), ("apart", adversarial)):
        model = InDoubles()
        run = wb.fit(model, data, objective, sync_batchnorm=name != "apart", progress=False, **settings)
        found |= {f"{name} {key}": value.double().flatten().tolist() for key, value in model.state_dict().items()}
        found |= {f"{name} gradient {key}": p.grad.flatten().tolist() for key, p in model.named_parameters()}
        found[f"{name} loss"] = [run.record["loss"]]
    return found


def test_batch_norms_over_two_processes_are_those_of_one(tmp_path):
    alone = normed()
    together, same = in_two_processes(tmp_path, normed)
    assert {n: v for n, v in same.items() if "apart" not in n} == {
        n: v for n, v in together.items() if "apart" not in n
    }
    assert list(together) == list(alone), "weights keep their names"
    for name, values in alone.items():
        if not name.startswith("apart"):
            assert together[name] == pytest.approx(values, rel=1e-10, abs=1e-12), name
    for name in ("layers.1.running_var", "layers.1.weight", "gradient layers.0.weight"):
        assert alone[f"apart {name}"] == alone[f"joint {name}"], "one process has nobody to join"
        assert together[f"apart {name}"] != pytest.approx(alone[f"apart {name}"], rel=1e-4), name
