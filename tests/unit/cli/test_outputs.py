"""No result is lost between a command and its files: written before it is printed, beside the run, never over a file of
the user's own, and by simultaneous writers one after the other."""

import json
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import sys

import pytest
import torch

import waterbed as wb
from waterbed.__main__ import main
from waterbed.cli.output import Patient, add_to_json
from waterbed.evaluation.standard import evaluate_standard
from waterbed.files import check_output, starts_with, write_atomic
from waterbed.reporting.runs import run_names
from waterbed.training.run_folder import Run
from waterbed.training.sweep import sweep
from waterbed.transfer_learning.records import RowsFile

EVALUATE = "--steps 1 --num-samples 4"
MINE = "my own work\n"


@pytest.fixture
def robust(runs, tmp_path):
    """A copy of a run, to write into."""
    return shutil.copytree(runs / "robust", tmp_path / "robust")


def test_results_lie_in_the_folder_of_the_run(robust, capsys):
    assert main(f"evaluate {robust} {EVALUATE} --eps 0.1".split()) == 0
    assert main(f"evaluate {robust} {EVALUATE} --eps 0.2".split()) == 0
    assert main(f"evaluate {robust} {EVALUATE} --eps 0.2".split()) == 0
    reports = json.loads((robust / "evaluation.json").read_text())["robust"]
    assert [r["settings"]["eps"] for r in reports] == [[0.1], [0.2]], "another radius is added, the same replaced"
    assert f"{robust}/evaluation.json written" in capsys.readouterr().out
    for quantity in ("input_fisher_trace", "weight_log_variance"):
        assert main(f"measure {robust} --num-samples 4 --quantities {quantity}".split()) == 0
    assert set(json.loads((robust / "measures.json").read_text())["robust"]) == {
        "input_fisher_trace", "weight_log_variance", "weight_norm",
    }  # fmt: skip


def test_what_is_kept_is_what_the_model_card_shows(robust):
    from waterbed.training.model_card import evaluations, measurements

    assert main(f"evaluate {robust} {EVALUATE}".split()) == 0
    assert main(f"measure {robust} --num-samples 4 --quantities input_fisher_trace".split()) == 0
    assert evaluations(None, robust)[0]["clean"]["n"] == 4
    assert measurements(None, robust)["input_fisher_trace"]["n"] == 4


def test_runs_of_one_name_keep_their_results(runs, tmp_path):
    folders = [tmp_path / part for part in ("x/a", "y/a", "z/a (1)")]
    for folder in folders:
        shutil.copytree(runs / "robust", folder)
    assert len(set(run_names([Run.load(folder) for folder in folders]))) == 3
    words = ["measure", *map(str, folders), "--num-samples", "4", "--quantities", "input_fisher_trace"]
    assert main([*words, "--out", str(tmp_path / "m.json")]) == 0
    assert len(json.loads((tmp_path / "m.json").read_text())) == 3


def test_a_file_of_the_users_own_is_never_replaced(robust, tmp_path, capsys):
    for name, words in {
        "thesis.html": f"report {robust}",
        "mine.csv": f"transfer {robust} --targets digits",
        "mine.json": f"measure {robust}",
        "other.json": f"evaluate {robust}",
        "pairs.json": f"distance digits fashion-mini --extractor {robust}",
        "weights.safetensors": f"convert {robust}",
    }.items():
        (tmp_path / name).write_text(MINE)
        assert main([*words.split(), "--out", str(tmp_path / name)]) == 2
        assert "was not written by this command" in capsys.readouterr().err
        assert (tmp_path / name).read_text() == MINE
    config = (robust / "config.toml").read_bytes()
    assert main(f"evaluate {robust} --out {robust}/config.toml".split()) == 2
    assert (robust / "config.toml").read_bytes() == config
    for name, words in {
        "results.json": "demo --quick",
        "robust.png": f"invert {robust} --steps 1",
        "robust.json": f"invert {robust} --steps 1",
        "index.html": "paper",
    }.items():
        place = tmp_path / f"folder of {name}"
        place.mkdir()
        (place / name).write_text(MINE)
        assert main([*words.split(), "--out", str(place)]) == 2
        assert "with --force" in capsys.readouterr().err
        assert (place / name).read_text() == MINE


def test_files_of_the_users_own_give_way_to_force(robust, tmp_path, monkeypatch):
    place = tmp_path / "folder"
    place.mkdir()
    for name in ("robust.png", "robust.json", "robust-plain.gif"):
        (place / name).write_text(MINE)
        words = f"invert {robust} --steps 1 --mode plain --animate --out {place}".split()
        assert main(words) == 2
        assert (place / name).read_text() == MINE
        assert main([*words, "--force"]) == 0
        assert (place / name).read_bytes() != MINE.encode()
    recorded = {}
    for path in ("reporting.demo.demo", "training.sweep.sweep"):
        monkeypatch.setattr(f"waterbed.{path}", lambda *a, _name=path, **options: recorded.update({_name: options}))
    monkeypatch.setattr("waterbed.cli.demo.print_table", lambda table: None)
    with pytest.raises(TypeError):  # of the results, which there are not
        main(["demo", "--force"])
    (tmp_path / "recipe.toml").write_text('data = "digits"\n')
    with pytest.raises(TypeError):
        main(f"sweep {tmp_path}/recipe.toml --out {tmp_path}/sweep --force".split())
    assert [options["force"] for options in recorded.values()] == [True, True]


def test_our_own_files_are_replaced_and_others_with_force(robust, tmp_path):
    page = tmp_path / "thesis.html"
    page.write_text(MINE)
    with pytest.raises(wb.UsageError, match="force=True"):
        wb.report([robust], page)
    wb.report([robust], page, force=True)
    wb.report([robust], page)
    (tmp_path / "m.json").write_text(MINE)
    for words in ("--force", ""):
        command = f"measure {robust} --num-samples 4 --quantities input_fisher_trace --out {tmp_path}/m.json {words}"
        assert main(command.split()) == 0
        assert list(json.loads((tmp_path / "m.json").read_text())) == ["robust"]
    result = wb.invert(Run.load(robust).model, torch.rand(2, 3, 8, 8), steps=1, keep_every=1)
    for name, write in {"a.png": result.save, "a.gif": result.animate}.items():
        (tmp_path / name).write_text(MINE)
        with pytest.raises(wb.UsageError, match="was not written"):
            write(tmp_path / name)
        write(tmp_path / name, force=True)
        write(tmp_path / name)
    run = Run.load(robust)
    (tmp_path / "w.safetensors").write_text(MINE)
    with pytest.raises(wb.UsageError, match="was not written"):
        run.export(tmp_path / "w.safetensors")
    run.export(tmp_path / "w.safetensors", force=True)
    run.export(tmp_path / "w.safetensors")


@pytest.mark.parametrize("path", ["", " ", ".", "/", "..", "~nobodyofthatname/x", "a\0b", "/dev/null", "x" * 300])
def test_a_path_that_cannot_be_written_is_found_before_the_work(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(wb.UsageError, match="out="):
        check_output(path, starts_with(b"mark"))


def _write(path, number):
    add_to_json(path, {str(number): number})


def test_simultaneous_writers_lose_nothing(tmp_path):
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_write, args=(tmp_path / "m.json", i)) for i in range(24)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert sorted(json.loads((tmp_path / "m.json").read_text()).values()) == list(range(24))


def test_a_rename_is_synced_with_its_folder(tmp_path, monkeypatch):
    done, replace, fsync = [], os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda *a: [done.append("replace"), replace(*a)])
    monkeypatch.setattr(os, "fsync", lambda fd: [done.append(stat.S_ISDIR(os.fstat(fd).st_mode)), fsync(fd)])
    write_atomic(tmp_path / "a", b"content")
    assert done == [False, "replace", True]


def _evaluate(model, path, start):
    torch.set_num_threads(1)  # a forked process has none of the threads that its parent's torch would wait for
    data = [
        (image, i % 2) for i, image in enumerate(torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(0)))
    ]
    start.wait(60)
    try:
        evaluate_standard(model, data, 0.1, out=path, autoattack="never")
    except wb.UsageError as error:
        assert "is being written by another process" in str(error)  # noqa: PT017
        os._exit(3)


def _add_row(path, seed):
    RowsFile(path).add({"seed": seed}, {"accuracy": seed})


def test_simultaneous_processes_lose_nothing_of_rows_and_evaluations(tmp_path):
    fork = multiprocessing.get_context("fork")
    rows = [fork.Process(target=_add_row, args=(tmp_path / "t.rows.jsonl", seed)) for seed in range(8)]
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    start = fork.Barrier(3)
    evaluations = [fork.Process(target=_evaluate, args=(model, tmp_path / "e.json", start)) for _ in range(3)]
    for process in [*rows, *evaluations]:
        process.start()
    for process in [*rows, *evaluations]:
        process.join(60)
    assert len(RowsFile(tmp_path / "t.rows.jsonl").rows) == 8
    codes = [process.exitcode for process in evaluations]
    assert 0 in codes
    assert set(codes) <= {0, 3}
    assert json.loads((tmp_path / "e.json").read_text())["report"]["n"] == 8


def test_one_process_at_a_time_writes_an_evaluation_or_a_sweep(digits, tmp_path):
    def other(lock):
        """Another process that holds it."""
        code = f"from waterbed.files import locked; from pathlib import Path; import sys\nwith locked(Path({lock!r})):"
        code += "\n print('held', flush=True); sys.stdin.read()"
        return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    for lock, work in {
        str(tmp_path / ".e.json.lock"): lambda: evaluate_standard(model, digits.test, 0.1, out=tmp_path / "e.json"),
        str(tmp_path / ".lock"): lambda: sweep(digits, lambda s: model, lambda e: wb.Standard(), [0], [0], tmp_path),
    }.items():
        holder = other(lock)
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(wb.UsageError, match="is being written by another process"):
            work()
        holder.communicate("")
        assert not (tmp_path / "e.json").exists()


class Broken:
    """A stream that fails, or that has no room, or few letters."""

    encoding = "ascii"

    def __init__(self, error=None):
        self.error, self.text = error, ""

    def write(self, text):
        if self.error is not None:
            raise self.error
        text.encode("ascii")
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return False

    def fileno(self):
        raise OSError


@pytest.mark.parametrize(
    ("stream", "code"),
    [(Broken(BrokenPipeError()), 0), (Broken(OSError(28, "No space left on device")), 2), (Broken(), 0), (None, 2)],
    ids=["nobody reads", "full", "ascii", "closed"],
)
def test_results_do_not_depend_on_who_reads_the_output(robust, monkeypatch, stream, code, capsys):
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(f"measure {robust} --num-samples 4 --quantities input_fisher_trace".split()) == code
    monkeypatch.undo()
    assert "input_fisher_trace" in (robust / "measures.json").read_text()
    assert ("standard output cannot be written" in capsys.readouterr().err) == (code == 2)


def test_what_an_encoding_lacks_is_replaced():
    stream = Broken()
    Patient(stream).write("1 ± 2")
    assert stream.text == "1 ? 2"


@pytest.fixture
def interruptible():
    """Ctrl-C interrupts, which Python leaves out where it is started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"])
def test_a_command_that_is_stopped_says_what_it_kept(robust, monkeypatch, number, code, capsys):
    import waterbed.information.measure as module

    real, calls = module.measure, []

    def stopping(*args, **options):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), number)
        return real(*args, **options)

    monkeypatch.setattr(module, "measure", stopping)
    other = shutil.copytree(robust, robust.parent / "other")
    before = signal.getsignal(signal.SIGTERM)
    words = f"measure {robust} {other} --num-samples 4 --quantities input_fisher_trace"
    assert main(words.split()) == code
    assert signal.getsignal(signal.SIGTERM) is before
    assert (robust / "measures.json").is_file()
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{robust}/measures.json is kept; the same command begins again" in line
    calls.clear()
    calls.append(1)
    assert main(["measure", str(other)]) == code
    assert "nothing had been written" in capsys.readouterr().err


@pytest.mark.slow
def test_a_full_device_ends_with_a_line(robust):
    words = f"measure {robust} --num-samples 4 --quantities input_fisher_trace".split()
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "waterbed", *words], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert (robust / "measures.json").is_file()
