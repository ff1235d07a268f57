"""The default noise on the weights is declared once."""

import ast
import dataclasses
import inspect
from pathlib import Path

import waterbed as wb
import waterbed_paper.scale
from waterbed.cli.invert import Invert
from waterbed.cli.measure import Measure
from waterbed.information.defaults import BETA, PRIOR_VARIANCE
from waterbed.information.measure import Settings

SOURCES = [Path(wb.__file__).parent, Path(waterbed_paper.scale.__file__).parent]
OWN = {"demo.py"}  # a fixed experiment, whose numbers are published


def declared(tree):
    """Names and defaults of every signature and class, as far as the defaults are written as numbers."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            ordered = node.args.posonlyargs + node.args.args
            first = len(ordered) - len(node.args.defaults)
            pairs = [*zip(ordered[first:], node.args.defaults, strict=True)]
            pairs += [*zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
            yield {a.arg for a in ordered + node.args.kwonlyargs}, {a.arg: d for a, d in pairs}
        elif isinstance(node, ast.ClassDef):
            fields = {f.target.id: f.value for f in node.body if isinstance(f, ast.AnnAssign)}
            yield set(fields), fields


def second_defaults(source):
    return [
        name
        for names, defaults in declared(ast.parse(source))
        if "prior_variance" in names  # TRADES has a beta of its own
        for name in ("beta", "prior_variance")
        if isinstance(defaults.get(name), ast.Constant) and isinstance(defaults[name].value, float)
    ]


def test_no_signature_declares_a_default_of_its_own():
    files = [path for folder in SOURCES for path in folder.rglob("*.py") if path.name not in OWN]
    assert len(files) > 50
    assert {path.name: names for path in files if (names := second_defaults(path.read_text()))} == {}


def test_a_second_default_would_be_noticed():
    assert second_defaults("def f(x, beta=1e-8, *, prior_variance): ...") == ["beta"]
    assert second_defaults("class C:\n    beta: float\n    prior_variance: float = 1e-3") == ["prior_variance"]
    assert second_defaults("def trades(beta=6.0): ...") == []


def test_all_read_the_same():
    for holder in (Settings, Measure, Invert, waterbed_paper.scale.Inversions):
        defaults = {f.name: f.default for f in dataclasses.fields(holder)}
        assert (defaults["beta"], defaults["prior_variance"]) == (BETA, PRIOR_VARIANCE)
    signature = inspect.signature(wb.WeightNoise).parameters
    assert (signature["beta"].default, signature["prior_variance"].default) == (BETA, PRIOR_VARIANCE)
    assert inspect.signature(wb.effective_images).parameters["prior_variance"].default == PRIOR_VARIANCE
