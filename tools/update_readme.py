"""Put the demo's numbers and pictures into the README.

    waterbed demo --out waterbed-demo && python tools/update_readme.py waterbed-demo

Copies results.json and the two inversion grids to results/demo/ and renews the table between the README's markers.
"""

import json
import shutil
import sys
from pathlib import Path

from waterbed.demo import summary_table

ROOT = Path(__file__).parent.parent
START, END = "<!-- demo table: start -->", "<!-- demo table: end -->"


def demo_table(results: dict) -> str:
    """The demo's table as Markdown, with its hardware and time."""
    table = summary_table(results)
    lines = ["| | standard | robust |", "|---|---:|---:|"]
    lines += [f"| {' | '.join(row)} |" for row in table.rows]
    environment = results["environment"]
    lines += [
        "",
        f"{table.caption} {results['seconds']:.0f} s on {environment['cores']} cores ({environment['device']}), "
        f"torch {environment['torch']}.",
    ]
    return "\n".join(lines)


def with_table(readme: str, results: dict) -> str:
    """The README's text with a fresh table."""
    before, rest = readme.split(START)
    return f"{before}{START}\n{demo_table(results)}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), ROOT / "results" / "demo"
    target.mkdir(parents=True, exist_ok=True)
    for name in ("results.json", "inversion-standard.png", "inversion-robust.png"):
        shutil.copy(source / name, target / name)
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text(), json.loads((target / "results.json").read_text())))
