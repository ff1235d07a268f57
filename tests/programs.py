"""The programs in the folders tools and benchmarks, which no package holds."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]


def load_program(path: str) -> ModuleType:
    """A program as a module, by its place in the checkout, such as "tools/soak.py"."""
    spec = importlib.util.spec_from_file_location(f"program_{Path(path).stem}", ROOT / path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where its dataclasses look it up
    spec.loader.exec_module(module)
    return module
