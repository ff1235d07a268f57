"""What a busy core costs a PGD training, by the number of threads and how they wait.

    python benchmarks/shared_machine.py [--width 64] [--busy 1] [--repeats 3] [--anyway] [--out FILE.json]

Every arm is a process of its own that trains two epochs of two steps (batch 128, PGD-7) through ``fit``; the second is
timed. First on the machine as it is, then beside ``--busy`` processes that hold a core each. "auto" is what ``fit``
chooses by itself. A machine on which other jobs run already gives no baseline; --anyway measures all the same, and the
cores found free are part of the result.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from waterbed.environment import environment
from waterbed.threads import free_cores

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
PASSIVE = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
# Settings of fit, and variables of its environment.
ARMS: dict[str, tuple[int, dict[str, str]]] = {
    f"{CORES} threads": (CORES, {}),
    f"{CORES} threads, passive waiting": (CORES, PASSIVE),
    "1 thread": (1, {}),
    "auto": (0, {}),
}
STEP = """
import sys, torch, waterbed as wb
from waterbed.data.images import TensorImages
class Noise:
    name, classes, num_classes, shape = "noise", tuple("0123456789"), 10, (3, 32, 32)
    train = test = TensorImages(torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8), torch.arange(256) % 10)
width, threads = map(int, sys.argv[1:])
seen = []
class Watch:
    def on_epoch_end(self, job): seen.append(torch.get_num_threads())
run = wb.fit(wb.create_model("resnet18", 10, width=width, seed=0), Noise(), wb.AdversarialTraining(wb.PGD(1.0)),
             epochs=2, watch=0, progress=False, threads=threads, callbacks=[Watch()])
print(run.history[-1]["seconds"] / 2, seen[-1])
"""


def step(width: int, threads: int, variables: dict[str, str]) -> tuple[float, int]:
    """Seconds of one step, and the threads it took."""
    words = [sys.executable, "-W", "ignore", "-c", STEP, str(width), str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(CORES), **variables}
    done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
    seconds, taken = done.stdout.split()[-2:]
    return float(seconds), int(taken)


def measured(width: int, repeats: int) -> dict[str, Any]:
    """Every arm in turn, medians."""
    taken: dict[str, list[tuple[float, int]]] = {name: [] for name in ARMS}
    free = []
    for _ in range(repeats):
        for name, (threads, variables) in ARMS.items():
            free.append(free_cores())
            taken[name].append(step(width, threads, variables))
    rows = {
        name: {"seconds": median(seconds for seconds, _ in values), "threads": [threads for _, threads in values]}
        for name, values in taken.items()
    }
    return {"steps": rows, "free_cores": free}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--busy", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--anyway", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    free = free_cores()
    if free < CORES - 0.3 and not options.anyway:
        sys.exit(f"only {free:.1f} of {CORES} cores are free; stop what runs, or pass --anyway")
    results = {"as it is": measured(options.width, options.repeats)}
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.busy)]
    try:
        time.sleep(1)
        results[f"{options.busy} core(s) held"] = measured(options.width, options.repeats)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    base = results["as it is"]["steps"][f"{CORES} threads"]["seconds"]
    for situation, result in results.items():
        for name, row in result["steps"].items():
            row["ratio"] = row["seconds"] / base
            print(f"{situation:18} {name:28} {row['seconds']:7.2f} s  {row['ratio']:5.2f} x  threads {row['threads']}")
    if options.out is not None:
        content = {"width": options.width, "results": results, "environment": environment()}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
