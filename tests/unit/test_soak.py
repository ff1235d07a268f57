"""The soak: what it compares, and a small count of kills."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.programs import load_program

TOOL = Path(__file__).parents[2] / "tools/soak.py"


@pytest.fixture(scope="module")
def soak():
    return load_program("tools/soak.py")


def test_every_bit_of_a_result_is_compared_and_nothing_of_the_machine(soak, tmp_path):
    for place, seconds in (("a", 1.0), ("b", 2.0)):
        (tmp_path / place).mkdir()
        (tmp_path / place / "weights.safetensors").write_bytes(b"\0\1")
        (tmp_path / place / "r.json").write_text(json.dumps({"out": str(tmp_path / place), "seconds": seconds, "n": 3}))
        (tmp_path / place / ".lock").write_text(place)
    first, second = (soak.fingerprint(tmp_path / place) for place in "ab")
    assert first == second
    assert len(first) == 2
    (tmp_path / "b/weights.safetensors").write_bytes(b"\0\0")
    assert soak.fingerprint(tmp_path / "b") != first
    (tmp_path / "b/weights.safetensors").write_bytes(b"\0\1")
    (tmp_path / "b/r.json").write_text(json.dumps({"out": str(tmp_path / "b"), "n": 4}))
    assert soak.fingerprint(tmp_path / "b") != first


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_killed_commands_end_bit_identical_and_memory_is_flat(tmp_path):
    words = f"--kills 2 --epochs 60 --out {tmp_path}/soak.json"
    done = subprocess.run([sys.executable, str(TOOL), *words.split()], capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "soak.json").read_text())["results"]
    assert all(result["kills"] == 2 for name, result in results.items() if name != "memory")
    assert results["memory"]["grown"] < 30
