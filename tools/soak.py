"""Kill every command at random moments, start it again until it ends, and compare with an undisturbed run, bit by bit.

    python tools/soak.py [--kills 20] [--seed 0] [--only train,paper] [--epochs 400] [--out FILE.json]

Every command runs in children that are forked once torch is imported, on one thread, and is hit by so many SIGKILLs in
all; the moments are uniform over the time that it takes undisturbed. A round ends when the command does, and its files
are then compared with those of the undisturbed run: weights, tables and pictures byte by byte, records but for their
seconds and for what they say of the machine. Then a training of so many epochs shows that its memory stays flat.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import pkgutil
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import waterbed as wb
import waterbed_paper
from waterbed.__main__ import main as waterbed
from waterbed.environment import environment
from waterbed.files import to_json, write_atomic

TRAIN = {"model": "resnet10", "width": 2, "epochs": 3, "batch_size": 128, "watch": 20, "checkpoint_minutes": 0.0}
ROBUST = {"objective": "adversarial", "eps": 0.3, "attack_steps": 1, "ema": 0.9}
OPTIONS = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in (TRAIN | ROBUST).items())
SCALE = """
about = "A few images."
measured = 6
[[sources]]
name = "fashion-mini"
data = "fashion-mini"
size = 8
train = 40
test = 30
model = "resnet10"
width = 2
epochs = 1
batch_size = 32
augment = "none"
attack_steps = 1
seeds = { 0 = 1, 1 = 1 }
evaluated_eps = [0.5]
[transfers]
targets = ["digits"]
modes = { 0 = 1 }
train = 40
epochs = { 0 = 1 }
[inversions]
images = 2
shown = 2
steps = 2
num_samples = 6
"""
# {source} is a trained run of the round's own, {out} the round's folder, {scale} and {recipe} the files above.
COMMANDS = {
    "train": f"train digits --out {{out}}/run {OPTIONS}",
    "sweep": "sweep {recipe} --out {out}/sweep --eps 0 0.3 --num-samples 10 --num-evaluated 40",
    "measure": "measure {source} --num-samples 10",
    "invert": "invert {source} --mode plain --steps 20 --num-images 3 --out {out}/inversions",
    "transfer": "transfer {source} --targets digits --mode 0 --seeds 0 1 2 --epochs 2 --num-train 99 --out {out}/t.csv",
    "evaluate": "evaluate {source} --attacks standard --autoattack never --eps 0.1 0.3 --num-samples 4",
    "paper": "paper --scale {scale} --out {out}/paper --only network accuracy transfer",
}
TOLD_APART = ("seconds", "environment", "throughput")  # of the machine, not of the result
LEFT_OUT = ("state.pt", "previous-state.pt", "environment.json", "log.txt")  # states hold seconds, too


def main(argv: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=20, help="of each command")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default=",".join(COMMANDS))
    options.add_argument("--epochs", type=int, default=400, help="of the training whose memory is watched; 0 for none")
    options.add_argument("--out", type=Path)
    chosen = options.parse_args(argv)
    torch.set_num_threads(1)
    import_everything()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        tempfile.tempdir = name  # what killed children leave there goes with it
        (place / "scale.toml").write_text(SCALE)
        recipe = "\n".join(f"{key} = {json.dumps(value)}" for key, value in (TRAIN | ROBUST).items())
        (place / "recipe.toml").write_text(f'data = "digits"\n{recipe}\n')
        source = f"train digits --out {place}/source --model resnet10 --width 2 --epochs 1 --watch 0"
        assert ended(start(source, place / "log.txt")) == 0, (place / "log.txt").read_text()
        for command in chosen.only.split(","):
            results[command] = soak(command, place / command, place, chosen.kills, random.Random(chosen.seed))
            print(f"{command}: {describe(results[command])}", flush=True)
            write(chosen, results)
        if chosen.epochs:
            results["memory"] = memory(chosen.epochs)
            print(f"memory: {results['memory']['first']} MB after a tenth, {results['memory']['last']} MB at the end")
            write(chosen, results)
    whole = all(result["identical"] == result["rounds"] for key, result in results.items() if key != "memory")
    return 0 if whole else 1


def import_everything() -> None:
    """What children would otherwise import anew each time."""
    for package in (wb, waterbed_paper):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for name in (
        "sklearn.datasets",
        "sklearn.model_selection",
        "torchmetrics.functional.image",
        "doit.cmd_run",
        "tyro",
    ):
        importlib.import_module(name)


def write(chosen: argparse.Namespace, results: dict[str, Any]) -> None:
    """What there is so far."""
    if chosen.out is not None:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        config = {"kills": chosen.kills, "seed": chosen.seed, "epochs": chosen.epochs, "commands": COMMANDS}
        write_atomic(chosen.out, to_json({"results": results, "config": config, "environment": environment()}).encode())


def soak(command: str, folder: Path, place: Path, kills: int, draw: random.Random) -> dict[str, Any]:
    """Rounds of one command until it has been killed so many times."""
    started = time.monotonic()
    code = ended(start(words(command, folder / "whole", place), folder / "whole/log.txt"))
    assert code == 0, (folder / "whole/log.txt").read_text()
    seconds, expected = time.monotonic() - started, fingerprint(folder / "whole")
    struck = rounds = identical = 0
    differences: list[str] = []
    while struck < kills:
        out = folder / f"round-{rounds}"
        line, code = words(command, out, place), None
        while code is None:
            child = start(line, out / "log.txt")
            if struck < kills:
                code = ended(child, kill_after=draw.uniform(0, 1.3 * seconds))
                struck += code is None
            else:
                code = ended(child)
        rounds += 1
        found = fingerprint(out)
        different = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        if code == 0 and not different:
            identical += 1
            shutil.rmtree(out)
        else:
            last = (out / "log.txt").read_text().strip().splitlines()[-1:]
            differences.append(f"round {rounds}: code {code}, {', '.join(different)}, {' '.join(last)}")
    return {
        "kills": struck,
        "rounds": rounds,
        "identical": identical,
        "files": len(expected),
        "undisturbed_seconds": round(seconds, 2),
        "differences": differences,
    }


def words(command: str, out: Path, place: Path) -> str:
    """The command line of a round, in a folder of its own with its own copy of the trained run."""
    shutil.copytree(place / "source", out / "source")
    files = {"scale": place / "scale.toml", "recipe": place / "recipe.toml", "source": out / "source"}
    return COMMANDS[command].format(out=out, **files)


def start(line: str, log: Path) -> int:
    """Run a command line in a child, which writes to ``log``; its process id."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, 1)
            os.dup2(file, 2)
            code = waterbed(line.split())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def ended(child: int, kill_after: float | None = None) -> int | None:
    """The exit code of a child; None if it was killed."""
    deadline = None if kill_after is None else time.monotonic() + kill_after
    while deadline is not None and time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    if deadline is not None:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if code == -signal.SIGKILL else code


def fingerprint(folder: Path) -> dict[str, str]:
    """A digest of every file by its name, without what tells two equal runs apart."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if not file.is_file() or file.name in LEFT_OUT or file.name.startswith("."):
            continue
        content = file.read_bytes().replace(str(folder).encode(), b"")
        if file.suffix in (".json", ".jsonl"):
            lines = [content] if file.suffix == ".json" else content.splitlines()
            content = json.dumps([compared(json.loads(line)) for line in lines], sort_keys=True).encode()
        found[str(file.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def compared(value: Any) -> Any:
    """What is compared of a record."""
    if isinstance(value, dict):
        return {k: compared(v) for k, v in value.items() if k not in TOLD_APART}
    return [compared(v) for v in value] if isinstance(value, list) else value


def memory(epochs: int) -> dict[str, Any]:
    """Resident memory [MB] over a long training, at twenty epochs from the tenth part on, and what it grew by."""
    curve: list[float] = []

    class Watch:
        def on_epoch_end(self, job: Any) -> None:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            curve.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)

    data = wb.load_dataset("digits").take(128, 16)
    model = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)
    with tempfile.TemporaryDirectory() as out:
        objective = wb.AdversarialTraining(wb.PGD(eps=0.3, steps=1))
        wb.fit(
            model, data, objective, Path(out) / "run", callbacks=[Watch()], epochs=epochs, watch=16, progress=False
        )  # fmt: skip
    settled = curve[len(curve) // 10 :]
    shown = [round(settled[i * (len(settled) - 1) // 19], 1) for i in range(20)]
    return {
        "epochs": epochs,
        "first": shown[0],
        "last": shown[-1],
        "grown": round(shown[-1] - shown[0], 1),
        "curve": shown,
    }


def describe(result: dict[str, Any]) -> str:
    """One line."""
    same = f"{result['identical']} of {result['rounds']} rounds ended identical in {result['files']} files"
    return f"{result['kills']} kills; {same}; {result['undisturbed_seconds']} s undisturbed" + "".join(
        f"\n  {difference}" for difference in result["differences"]
    )


if __name__ == "__main__":
    raise SystemExit(main())
