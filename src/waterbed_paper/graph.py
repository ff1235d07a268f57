"""Experiments as a graph of nodes: each runs when its config, its code or what it builds on has changed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import torch
from doit.cmd_base import TaskLoader2
from doit.doit_cmd import DoitMain
from doit.reporter import ZeroReporter
from doit.task import dict_to_task

from waterbed.environment import environment
from waterbed.errors import StoppedError, UsageError, check_choice
from waterbed.files import digest, make_folder, to_json, write_atomic
from waterbed.launchers import LAUNCHERS, submitit_executor

Function = Callable[["Place", dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Place:
    """Where a reproduction reads its data and keeps its results.

    Attributes:
        out: the folder of all results.
        root: where data sets lie, as folders or named sets; None for the usual place.
        networks: where trained networks are kept, and found if they were trained before.
    """

    out: Path
    root: str | None = None
    networks: Path | None = None

    def network(self, file: str) -> Path:
        """Where a trained network lies."""
        return (self.networks or self.out / "networks") / file


@dataclass(frozen=True)
class Node:
    """One experiment.

    Attributes:
        id: a path such as "measures/cifar10/eps-1/seed-0"; its first part is the kind.
        function: (place, config) -> plain values for JSON. Its ``version`` says which code a result comes from; it
            goes up when numbers would change.
        config: what the result depends on, with the files it takes from what it needs.
        needs: ids of nodes that come first; when one of them changes, this node runs again.
        seconds: an estimate for two cores.
    """

    id: str
    function: Function
    config: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    seconds: float = 10.0


def experiment(version: int) -> Callable[[Function], Function]:
    """Give a node's function the version of its code."""

    def with_version(function: Function) -> Function:
        function.version = version
        return function

    return with_version


class Graph:
    """Nodes by id, each after what it needs, with their results in ``place.out``/nodes.

    Raises :class:`UsageError` for an id that is there twice, and for a need that is not there yet.
    """

    def __init__(self, nodes: Sequence[Node], place: Place) -> None:
        self.nodes: dict[str, Node] = {}
        self.place = place
        for node in nodes:
            if node.id in self.nodes or any(need not in self.nodes for need in node.needs):
                raise UsageError(f"nodes has {node.id!r} twice or before what it needs ({', '.join(node.needs)})")
            self.nodes[node.id] = node
        self._keys: dict[str, str] = {}

    def key(self, id: str) -> str:
        """Hash of the node's config, its code's version and the keys of what it needs."""
        if id not in self._keys:
            node = self.nodes[id]
            what = [node.function.__name__, getattr(node.function, "version", 0), node.config]
            what.append({need: self.key(need) for need in node.needs})
            self._keys[id] = digest([json.dumps(what, sort_keys=True)])[:16]
        return self._keys[id]

    def file(self, id: str) -> Path:
        """Where the node's result lies."""
        return self.place.out / "nodes" / f"{id}.json"

    def result(self, id: str) -> dict[str, Any] | None:
        """The node's result; None if it did not run, or ran with another config or code."""
        record = _read(self.file(id))
        return record["result"] if record is not None and record["key"] == self.key(id) else None

    def missing(self) -> list[str]:
        """The nodes that would run."""
        return [id for id in self.nodes if self.result(id) is None]

    def select(self, patterns: Sequence[str]) -> list[str]:
        """Nodes whose id starts with one of the patterns (all without any), and what they need."""
        wanted = {id for id in self.nodes if not patterns or any(id.startswith(p) for p in patterns)}
        for pattern in patterns:
            if not any(id.startswith(pattern) for id in self.nodes):
                near = ", ".join(get_close_matches(pattern, self.nodes, 3, 0))
                kinds = ", ".join(dict.fromkeys(id.split("/")[0] for id in self.nodes))
                raise UsageError(f"only={pattern!r} names no experiment; start with {kinds}; nearest are {near}")
        for id in reversed(self.nodes):
            if id in wanted:
                wanted.update(self.nodes[id].needs)
        return [id for id in self.nodes if id in wanted]

    def run(
        self, only: Sequence[str] = (), processes: int = 1, launcher: str = "here", progress: bool = True
    ) -> dict[str, str]:
        """Run what is missing, in the order of needs; returns the failures: id -> message. What does not need a failed
        node goes on.

        A training that SIGTERM stops raises :class:`StoppedError` and goes on when the graph is run again.

        Args:
            only: beginnings of ids.
            processes: nodes at a time, which share the processor's cores.
            launcher: "here", or "slurm", "local" and "debug" to make every node a job of submitit.
        """
        check_choice("launcher", launcher, LAUNCHERS)
        ids = self.select(only)
        make_folder(self.place.out / "nodes")
        reporter = _reporter(sum(self.result(id) is None for id in ids), progress)
        threads = max(1, torch.get_num_threads() // processes)  # more threads than cores are slower than one
        loader = _Loader([self._task(id, launcher, threads) for id in ids])
        words = ["run", "--continue", *(["-n", str(processes), "-P", "process"] if processes > 1 else [])]
        # What is up to date the results say; doit's own record of it could be torn by a kill, or be another process's.
        with TemporaryDirectory() as record:
            config = {"GLOBAL": {"reporter": reporter, "backend": "json", "dep_file": str(Path(record) / "doit.json")}}
            try:
                code = DoitMain(loader, extra_config=config).run(words)
            except _StopAll as stop:
                raise StoppedError(str(stop)) from stop
        failures = {id: reporter.failed[id] for id in ids if id in reporter.failed}
        silent = [id for id in ids if id not in failures and self.result(id) is None]
        if silent or (code and not failures):
            raise UsageError(
                f"doit ended with code {code} before {len(silent)} of {len(ids)} experiments had run; its own message "
                "is above; mend that, and the same command goes on"
            )
        return failures

    def _task(self, id: str, launcher: str, threads: int) -> dict[str, Any]:
        def action() -> None:
            if threads != torch.get_num_threads():
                torch.set_num_threads(threads)
            try:
                self._launch(id, launcher)
            except StoppedError as error:
                state = "its state and " if error.saved else ""
                kept = f"{state}what had finished is kept, and the same command goes on from there"
                raise _StopAll(f"asked to stop in {id}; {kept}") from error

        return {
            "name": id,
            "actions": [action],
            "task_dep": list(self.nodes[id].needs),
            "uptodate": [lambda: self.result(id) is not None],
            "verbosity": 2,
        }

    def _launch(self, id: str, launcher: str) -> None:
        if launcher == "here":
            self.execute(id)
            return
        submitit_executor(launcher, self.place.out / "jobs", "waterbed-paper").submit(self.execute, id).result()

    def execute(self, id: str) -> None:
        """Run one node and keep its result."""
        node = self.nodes[id]
        lacking = [need for need in node.needs if self.result(need) is None]
        if lacking:
            raise UsageError(f"{id!r} needs {', '.join(lacking)}, which did not run")
        started = time.monotonic()
        result = node.function(self.place, node.config)
        record = {"id": id, "key": self.key(id), "config": node.config, "result": result}
        record |= {"seconds": round(time.monotonic() - started, 1), "environment": environment()}
        make_folder(self.file(id).parent)
        write_atomic(self.file(id), to_json(record).encode())


def _read(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        record = json.loads(file.read_text())
        return {"key": record["key"], "result": record["result"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{str(file)!r} is damaged ({type(error).__name__}); remove it to run it again") from error


class _StopAll(BaseException):
    """SIGTERM in an experiment ends them all: doit catches only an Exception."""


class _Loader(TaskLoader2):
    """Hands doit the tasks as they are."""

    def __init__(self, tasks: list[dict[str, Any]]) -> None:
        super().__init__()
        self.tasks = tasks

    def load_doit_config(self) -> dict[str, Any]:
        return {}

    def load_tasks(self, cmd: Any, pos_args: Any) -> list[Any]:
        return [dict_to_task(task) for task in self.tasks]


def _reporter(total: int, progress: bool) -> type[ZeroReporter]:
    """A reporter of doit that counts what is left, and remembers failures."""

    class Reporter(ZeroReporter):
        failed: ClassVar[dict[str, str]] = {}
        done, started = 0, time.monotonic()

        def execute_task(self, task: Any) -> None:
            self._print(f"{task.name} ...")

        def add_success(self, task: Any) -> None:
            type(self).done += 1
            left = (time.monotonic() - self.started) / self.done * (total - self.done)
            self._print(f"{task.name} done ({self.done} of {total}, ETA {left / 60:.0f} min)")

        def add_failure(self, task: Any, fail: Any) -> None:
            message = fail.get_msg().strip().splitlines()[-1]
            if message in task.task_dep:  # doit gives the name of a need that failed
                message = f"needs {message}, which failed"
            self.failed[task.name] = message.removeprefix("waterbed.errors.UsageError: ")
            self._print(f"{task.name} failed: {self.failed[task.name]}")

        def _print(self, text: str) -> None:
            if progress:
                print(text, file=sys.stderr, flush=True)

    return Reporter
