"""Two gloo processes give the estimates of one."""

import json
import os
import subprocess
import sys

import pytest
import torch

import waterbed as wb

SCRIPT = """
import json, sys
import torch.distributed as dist
import waterbed as wb
from test_processes import measures

dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=int(sys.argv[2]), world_size=2)
print(json.dumps(measures()))
dist.destroy_process_group()
"""


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
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "meeting"), str(rank)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    together = [json.loads(process.communicate(timeout=300)[0].splitlines()[-1]) for process in started]
    assert together[0] == together[1]
    for name, value in alone.items():
        assert together[0][name] == pytest.approx(value, rel=1e-9, nan_ok=True), name
        assert value == pytest.approx(alone[f"2 {name.split(' ', 1)[1]}"], rel=1e-9, nan_ok=True), name
