"""Every command that keeps results is stopped before each write, by a kill, by a signal and by a full disk: nothing
torn is left, it says what it kept, and the same command then ends as if nothing had happened."""

import errno
import json
import os
import resource
import shutil
import signal
import sys

import pytest
import torch
from tests.crash_points import stopped_everywhere

from waterbed.__main__ import main
from waterbed.errors import StoppedError
from waterbed.files import write_atomic
from waterbed.plots import PNG_MARK
from waterbed.training.run_folder import Run
from waterbed_paper.graph import Graph, Node, Place

PNG = b"\x89PNG" + b"tEXtSoftware\0" + PNG_MARK.encode()
COMMANDS = {
    "evaluate": "evaluate {0}/robust {0}/standard --steps 1 --num-samples 4",
    "measure": "measure {0}/robust {0}/standard --num-samples 4 --quantities input_fisher_trace",
    "invert": "invert {0}/robust --mode plain --steps 1 --num-images 2 --out {0}/i",
    "transfer": "transfer {0}/robust --targets {0}/data --mode linear --seeds 0 1 --epochs 1 --lr 0.1 --out {0}/t.csv",
}

ONCE = {
    "report": "report {0}/robust --out {0}/r.html",
    "convert": "convert {0}/robust --out {0}/w.safetensors",
    "distance": "distance {0}/data digits --num-samples 10 --extractor {0}/robust --out {0}/d.json",
    "choose": "choose --target {0}/data --backbones {0}/robust {0}/standard --num-samples 30 --out {0}/c.csv",
}
TRAININGS = {
    "train": "train {0}/data --out {0}/t --model resnet10 --width 2 --size 8 --epochs 2 --batch-size 16",
    "sweep": "sweep {0}/recipe.toml --out {0}/s --eps 0 --num-samples 4 --num-evaluated 4",
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("waterbed.plots.png", lambda figure, dpi=130: PNG)  # drawing is what takes long


@pytest.fixture
def place(runs, tmp_path):
    """A number -> a folder with its own copy of the runs and of their data."""

    def copied(number):
        if not (tmp_path / str(number)).is_dir():
            shutil.copytree(runs, tmp_path / str(number))
        return tmp_path / str(number)

    return copied


def contents(folder):
    """The files of a folder; every JSON file can be read, and nothing of a stopped process is named like a result."""
    found = {}
    for file in folder.rglob("*"):
        if not file.is_file() or "data" in file.parts or file.name.endswith(".lock"):
            continue
        content = file.read_bytes().replace(str(folder).encode(), b"")
        if file.suffix == ".json":
            content = json.dumps(without_seconds(json.loads(content)))
        if file.suffix == ".jsonl":
            content = [without_seconds(json.loads(line)) for line in content.splitlines()]
        found[str(file.relative_to(folder))] = content
    return {name: content for name, content in found.items() if not name.endswith((".tmp", ".pt"))}


def without_seconds(value):
    if isinstance(value, dict):
        return {k: without_seconds(v) for k, v in value.items() if k != "seconds"}
    return [without_seconds(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "command",
    [pytest.param(name, marks=pytest.mark.slow if name in ("measure", "invert") else ()) for name in COMMANDS],
)
def test_stopped_before_any_write_it_ends_the_same(place, monkeypatch, command):
    def work(number):
        assert main(COMMANDS[command].format(place(number)).split()) == 0

    place(0)
    for number in stopped_everywhere(monkeypatch, work, before=place):
        assert contents(place(number)) == contents(place(0)), f"stopped at {number}"
        shutil.rmtree(place(number))


class Failing:
    """From its call number ``at`` on, a function does something else."""

    def __init__(self, monkeypatch, name, at, instead):
        self.left, self.instead, self.real = at, instead, getattr(os, name)
        monkeypatch.setattr(os, name, self)

    def __call__(self, *args):
        self.left -= 1
        if self.left < 0:
            self.instead()
        return self.real(*args)


def write_recipe(folder):
    lines = [f'data = "{folder}/data"', 'model = "resnet10"', "width = 2", "size = 8", "epochs = 2", "batch_size = 16"]
    (folder / "recipe.toml").write_text("\n".join(lines))


def no_room():
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("command", COMMANDS | ONCE)
def test_a_full_disk_is_a_line_and_leaves_nothing_torn(place, monkeypatch, command, capsys):
    words = (COMMANDS | ONCE)[command]
    assert main(words.format(place("whole")).split()) == 0
    for writes in range(1 if command in ONCE else 2):  # each is one sync of the file and one of its folder
        with monkeypatch.context() as patch:
            Failing(patch, "fsync", 2 * writes, no_room)
            assert main(words.format(place(writes)).split()) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("waterbed: error: cannot write")
        assert "No space left on device" in error
        contents(place(writes))
        assert not list(place(writes).rglob("*.tmp"))
        assert main(words.format(place(writes)).split()) == 0
        assert contents(place(writes)) == contents(place("whole"))


@pytest.mark.parametrize("command", TRAININGS)
def test_a_full_disk_while_it_trains_is_a_line_and_nothing_is_lost(place, monkeypatch, command, capsys):
    for end in ("full", "whole"):
        write_recipe(place(end))
    words = TRAININGS[command]
    with monkeypatch.context() as patch:
        Failing(patch, "fsync", 12, no_room)
        assert main(words.format(place("full")).split()) == 2
    assert "No space left on device" in capsys.readouterr().err.strip().splitlines()[-1]
    for end in ("full", "whole"):
        assert main(words.format(place(end)).split()) == 0
    assert contents(place("full")) == contents(place("whole"))


@pytest.mark.parametrize(
    ("command", "number", "code"),
    [*((name, signal.SIGTERM, 143) for name in COMMANDS), ("transfer", signal.SIGINT, 130)],
)
def test_a_signal_at_any_write_is_a_line_that_says_how_to_go_on(place, monkeypatch, command, number, code, capsys):
    before, words = signal.signal(signal.SIGINT, signal.default_int_handler), COMMANDS[command]
    try:
        with monkeypatch.context() as patch:
            # Once written, the second is not.
            Failing(patch, "replace", 1, lambda: os.kill(os.getpid(), number))
            assert main(words.format(place("stopped")).split()) == code
    finally:
        signal.signal(signal.SIGINT, before)
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert " is kept; the same command " in line
    assert line.endswith("goes on from there" if command == "transfer" else "begins again")
    contents(place("stopped"))
    for end in ("stopped", "whole"):
        assert main(words.format(place(end)).split()) == 0
    assert contents(place("stopped")) == contents(place("whole"))


@pytest.mark.parametrize("command", TRAININGS)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"])
def test_a_signal_while_it_trains_is_a_line_and_nothing_is_lost(place, monkeypatch, command, number, code, capsys):
    for end in ("stopped", "whole"):
        write_recipe(place(end))
    before, words = signal.signal(signal.SIGINT, signal.default_int_handler), TRAININGS[command]
    try:
        with monkeypatch.context() as patch:
            calls = []

            def kill():  # once, as the state after the first epoch is renamed
                calls.append(1)
                if len(calls) == 1:
                    os.kill(os.getpid(), number)

            Failing(patch, "replace", 3, kill)
            assert main(words.format(place("stopped")).split()) == code
    finally:
        signal.signal(signal.SIGINT, before)
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("waterbed: error: asked to stop" if code == 143 else "waterbed: error: interrupted")
    assert line.endswith("goes on from there")
    for end in ("stopped", "whole"):
        assert main(words.format(place(end)).split()) == 0
    assert contents(place("stopped")) == contents(place("whole"))


def test_a_request_to_stop_while_transfer_trains_says_which_rows_are_kept(place, monkeypatch, capsys):
    import waterbed.transfer_learning.transfer as module

    real, calls = module.finetune, []

    def finetune(*args, **options):
        calls.append(1)
        if len(calls) == 2:
            raise StoppedError("asked to stop in epoch 1 after batch 2; nothing was saved", saved=False)  # as fit does
        return real(*args, **options)

    monkeypatch.setattr(module, "finetune", finetune)
    words = COMMANDS["transfer"].format(place("a")).split()
    assert main(words) == 143
    assert "t.rows.jsonl is kept; the same command goes on from there" in capsys.readouterr().err
    assert main(words) == 0
    assert len(calls) == 3, "the first row is not trained again"


def test_an_experiment_stopped_before_any_write_ends_the_same(tmp_path, monkeypatch):
    def written(where, config):
        write_atomic(where.out / f"{config['name']}.txt", b"a picture")
        return {"value": len(config["name"])}

    nodes = [Node("a/1", written, {"name": "a"}), Node("b/1", written, {"name": "bb"}, ("a/1",))]

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))

    def work(number):
        out = tmp_path / str(number)
        assert Graph(nodes, Place(out)).run(progress=False) == {}

    for number in stopped_everywhere(monkeypatch, work):
        records = [
            without_seconds(json.loads((tmp_path / place / f"nodes/{id}.json").read_text()))
            for id in ("a/1", "b/1")
            for place in (str(number), "0")
        ]
        assert records[0] == records[1]
        assert records[2] == records[3]


def test_an_export_stopped_before_any_write_is_made_again(runs, tmp_path, monkeypatch):
    run = Run.load(runs / "robust")

    def work(number):
        run.export(tmp_path / f"{number}.safetensors")

    for number in stopped_everywhere(monkeypatch, work):
        assert Run.load(tmp_path / f"{number}.safetensors").history == run.history


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_a_limit_of_the_system_on_the_size_of_files_is_a_line(place):
    words = COMMANDS["evaluate"].format(place("limited")).split()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        torch.set_num_threads(1)  # a child has none of the threads that its parent's torch would wait for
        try:
            os.dup2(write, 2)
            sys.stderr = os.fdopen(2, "w")
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
            code = main(words)
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as stream:
        error = stream.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2, error
    assert "waterbed: error: cannot write" in error
    assert "Traceback" not in error
    assert not list(place("limited").rglob("*.tmp"))
