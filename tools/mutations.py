"""How many small mistakes in the code the tests would notice, room by room: a sample of mutants, and who survives.

A mutant is the code with one operator, number, comparison or constant changed, by cosmic-ray. Places are drawn at
random with a seed, then one change at each. Each mutant meets the tests that run its line (found with coverage),
fastest first, in a copy of the checkout; a failure kills it. One that takes far longer than they do
is counted apart.

    pip install cosmic-ray coverage
    python tools/mutations.py --sample 30                     # writes results/mutations.json
    python tools/mutations.py --rooms information --sample 100

What is not mutated: annotations, and functions that draw. Judgements of survivors are written by hand into the report,
which keeps them as long as the mutant survives.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import cosmic_ray.ast
import coverage
import pytest
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from scipy.stats import binomtest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("src", "tests", "tools", "benchmarks", "examples", "pyproject.toml")
# Whatever turns an arithmetic operator into a shift or the like is a TypeError on tensors: killed, and no information.
OPERATORS = re.compile(
    r"core/(ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_Div|Div_Mul|Pow_Mul|Mod_Mul|FloorDiv_Mul|BitAnd_BitOr|BitOr_BitAnd)"
    r"|ReplaceComparisonOperator_(Eq_NotEq|NotEq_Eq|Lt_LtE|Lt_Gt|LtE_Lt|LtE_Gt|Gt_GtE|Gt_Lt|GtE_Gt|GtE_Lt|Is_IsNot|IsNot_Is)"
    r"|ReplaceUnaryOperator_(USub_UAdd|Delete_Not|Delete_Invert)|AddNot|NumberReplacer|ReplaceTrueWithFalse"
    r"|ReplaceFalseWithTrue|ReplaceAndWithOr|ReplaceOrWithAnd|ReplaceBreakWithContinue|ReplaceContinueWithBreak"
    r"|ZeroIterationForLoop)$"
)
ROOMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "information": (
        "src/waterbed/information/*.py",
        ("tests/unit/information", *(f"tests/reference/test_{n}.py" for n in (
            "spectrum", "operators", "input_fisher", "weight_fisher", "weight_noise_fisher", "gram", "small_models"
        ))),
    ),
    "inversion": ("src/waterbed/inversion/*.py", ("tests/unit/inversion",)),
    "transfer_learning": (
        "src/waterbed/transfer_learning/*.py",
        ("tests/unit/transfer_learning", "tests/reference/test_class_emd.py", "tests/reference/test_scores.py"),
    ),
    "training": ("src/waterbed/training/*.py", ("tests/unit/training",)),
    "evidence": (
        "src/waterbed_paper/{topics/*,evidence,verdicts,results,corrections}.py",
        tuple(f"tests/unit/paper/test_{name}.py" for name in (
            "both_verdicts", "evidence", "verdicts", "corrections", "results", "information", "weights", "inversion",
            "inversion_by_eps", "inversion_convergence", "perturbations", "representation", "robustness", "accuracy",
            "transfer", "transfer_distance", "transfer_sizes", "fine_tuning", "fine_tuning_curves",
        )),
    ),
}  # fmt: skip
SKIPPED = ("test_resume.py", "test_trackers.py", "test_step.py")  # minutes, or processes of their own
QUIET = (
    "-W",
    "ignore::pytest.PytestCollectionWarning",
)  # modules are named for their doctests, with no test class in them
SECONDS = 60.0  # of tests for one mutant at most, fastest first


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    file: str
    line: int
    operator: str
    occurrence: int

    def code(self, source: str) -> str | None:
        """The whole file, changed."""
        return mutate_code(source, get_operator(self.operator)(), self.occurrence)


class Contexts:
    """Tells coverage which test is running, and how long each took."""

    def __init__(self, cover: coverage.Coverage) -> None:
        self.cover, self.seconds = cover, {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.cover.switch_context(nodeid)


def expand(pattern: str) -> list[str]:
    """Files of a pattern with one {a,b} in it, from the root."""
    match = re.search(r"\{(.*?)\}", pattern)
    patterns = [pattern.replace(match.group(0), one) for one in match.group(1).split(",")] if match else [pattern]
    return sorted(str(p.relative_to(ROOT)) for one in patterns for p in ROOT.glob(one) if p.stat().st_size > 200)


def places(file: str) -> dict[tuple, list[Mutant]]:
    """Place -> the changes there, but for annotations and functions that draw."""
    source = (ROOT / file).read_text()
    excluded = [*_excluded(ast.parse(source))]
    by_place: dict[tuple, list[Mutant]] = {}
    tree = cosmic_ray.ast.get_ast(source)
    for name in filter(OPERATORS.match, sorted(operator_names())):
        operator, occurrence = get_operator(name)(), 0
        for node in cosmic_ray.ast.ast_nodes(tree):
            for start, end in operator.mutation_positions(node):
                if not any(a <= start and end <= b for a, b in excluded):
                    by_place.setdefault((file, start, end), []).append(Mutant(file, start[0], name, occurrence))
                occurrence += 1
    return by_place


def _excluded(tree: ast.AST) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for node in ast.walk(tree):
        function = isinstance(node, ast.FunctionDef)
        if function and re.search("Figure|Picture|Section|Table", ast.unparse(node.returns) if node.returns else ""):
            yield (node.lineno, 0), (node.end_lineno, 10**6)
        for field in ("annotation", "returns"):
            one = getattr(node, field, None)
            if one is not None:
                yield (one.lineno, one.col_offset), (one.end_lineno, one.end_col_offset)


def run_tests(tests: Sequence[str], folder: Path, seconds: float, plugins: Sequence = ()) -> int:
    """The exit code of pytest in a forked process that has torch already; -1 for one that took too long."""
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        sys.path[:0] = [str(folder / "src"), str(folder)]
        os._exit(int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *QUIET, *tests], plugins=[*plugins])))
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1


def cover(room: str, folder: Path) -> dict[tuple[str, int], dict[str, float]]:
    """(file, line) -> the tests that run it, with their seconds."""
    pattern, tests = ROOMS[room]
    record = folder / f"{room}.json"
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        sys.path[:0] = [str(folder / "src"), str(folder)]
        measured = coverage.Coverage(data_file=None, include=[str(folder / file) for file in expand(pattern)])
        contexts = Contexts(measured)
        measured.start()
        chosen = [*tests, *(f for f in expand(pattern))]  # the files themselves for their doctests
        ignore = [f"--ignore-glob=*{name}" for name in SKIPPED]
        code = pytest.main(["-q", "-p", "no:cacheprovider", *QUIET, *ignore, *chosen], plugins=[contexts])
        measured.stop()
        data, lines = measured.get_data(), {}
        for file in data.measured_files():
            for line, names in data.contexts_by_lineno(file).items():
                lines[f"{Path(file).relative_to(folder)}:{line}"] = [n for n in names if n]
        record.write_text(json.dumps({"code": int(code), "lines": lines, "seconds": contexts.seconds}))
        os._exit(0)
    os.waitpid(child, 0)
    found = json.loads(record.read_text())
    if found["code"] != 0:
        raise SystemExit(f"the tests of {room} fail without any change; mend them first")
    seconds = found["seconds"]
    by_line = {}
    for place, names in found["lines"].items():
        file, line = place.rsplit(":", 1)
        by_line[file, int(line)] = {n: seconds[n] for n in names if n in seconds}
    by_line["", 0] = seconds
    return by_line


def tests_of(mutant: Mutant, by_line: dict) -> list[str]:
    """The tests that run the mutant's line, fastest first; all of the room for a line that runs at import."""
    tests = by_line.get((mutant.file, mutant.line)) or by_line["", 0]
    chosen, total = [], 0.0
    for name, seconds in sorted(tests.items(), key=lambda item: item[1]):
        total += seconds
        if total > SECONDS:
            break
        chosen.append(name)
    return chosen


def run_room(room: str, sample: int, seed: int, folder: Path) -> tuple[dict, list[dict]]:
    """The count of a room, and its survivors."""
    started = time.monotonic()
    sites = {place: ms for file in expand(ROOMS[room][0]) for place, ms in places(file).items()}
    generator = random.Random(f"{seed} {room}")
    drawn = generator.sample(sorted(sites), min(sample, len(sites)))
    by_line, survivors, slow = cover(room, folder), [], 0
    for place in drawn:
        mutant = generator.choice(sites[place])
        source = (ROOT / mutant.file).read_text()
        changed = mutant.code(source)
        (folder / mutant.file).write_text(changed)
        code = run_tests(tests_of(mutant, by_line), folder, 3 * SECONDS)
        (folder / mutant.file).write_text(source)
        before, after = _differing(source, changed)
        slow += code == -1
        if code == 0:
            survivors.append({"room": room, "file": mutant.file, "line": mutant.line, "before": before, "after": after})
        words = {0: "SURVIVED", -1: "took too long"}.get(code, "killed")
        print(f"{room} {mutant.file}:{mutant.line} {words}: {before} -> {after}", flush=True)
    killed, decided = len(drawn) - len(survivors) - slow, len(drawn) - slow
    interval = binomtest(killed, decided).proportion_ci(0.95, "wilson")
    count = {"places": len(sites), "sampled": len(drawn), "took_too_long": slow, "killed": killed}
    count["killed_share"] = round(killed / decided, 3)
    count["interval_95"] = [round(float(interval.low), 3), round(float(interval.high), 3)]
    return count | {"minutes": round((time.monotonic() - started) / 60, 1)}, survivors


def _differing(before: str, after: str) -> tuple[str, str]:
    """The first line that differs, before and after."""
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    return next((a.strip(), b.strip()) for a, b in pairs if a != b)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", nargs="*", default=list(ROOMS), choices=ROOMS)
    parser.add_argument("--sample", type=int, default=30, help="mutants of each room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "results/mutations.json")
    options = parser.parse_args()
    sys.dont_write_bytecode = True  # a file that changes twice within a second would be taken from its cache
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() not in (ROOT, ROOT / "src")]
    for heavy in ("torch", "torchvision", "scipy.stats", "sklearn.linear_model", "matplotlib.pyplot", "ot"):
        __import__(heavy)
    old = json.loads(options.out.read_text()) if options.out.is_file() else {"rooms": {}, "survivors": []}
    judged = {(s["file"], s["before"], s["after"]): s.get("judgement", "") for s in old["survivors"]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            if (ROOT / part).exists():
                copy(ROOT / part, folder / part)
        for cache in [*folder.rglob("__pycache__")]:
            shutil.rmtree(cache)
        (folder / "results").symlink_to(ROOT / "results")
        for room in options.rooms:
            count, survivors = run_room(room, options.sample, options.seed, folder)
            old["rooms"][room] = count
            others = [s for s in old["survivors"] if s["room"] != room]
            for s in survivors:
                s["judgement"] = judged.get((s["file"], s["before"], s["after"]), "")
            old["survivors"] = others + survivors
            report = {"tool": f"cosmic-ray {version('cosmic-ray')}", "seed": options.seed, **old}
            report["rooms"] = {room: old["rooms"][room] for room in ROOMS if room in old["rooms"]}
            options.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
