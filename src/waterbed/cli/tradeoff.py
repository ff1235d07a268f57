"""What ``waterbed transfer --distances`` adds: the gaps to the first run against the distance of the targets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from waterbed.cli.common import write_json
from waterbed.cli.output import print_rows
from waterbed.errors import UsageError
from waterbed.plots import save_figure
from waterbed.transfer_learning.table import TransferTable
from waterbed.transfer_learning.tradeoff import trade_off


def read_distances(path: str, targets: Sequence[str]) -> dict[str, float]:
    """Distance of each target, by its name, from the first set of a file that ``waterbed distance`` wrote."""
    try:
        pairs = json.loads(Path(path).expanduser().read_text())["pairs"]
        source = pairs[0]["source"]
        found = {pair["target"]: float(pair["value"]) for pair in pairs if pair["source"] == source}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UsageError(
            f"distances={path!r} is no file of waterbed distance --out ({type(error).__name__})"
        ) from error
    missing = [target for target in targets if target not in found and Path(target).name not in found]
    if missing:
        raise UsageError(f"distances={path!r} has {', '.join(found)} from {source}, but not {', '.join(missing)}")
    return found | {target: found[Path(target).name] for target in targets if target not in found}


def write_trade_off(table: TransferTable, distances: dict[str, float], out: str | None) -> None:
    """Print the gaps and their correlation with the distance; beside ``out`` the picture and the numbers."""
    found = trade_off(table, distances, table.rows[0]["model"])
    columns = ["model", "target", "distance", "gap [points]"]
    rows = [
        [g.model, g.target, f"{g.distance:.4g}", f"{g.gap:+.2f}" + (f" ± {g.half_width:.2f}" if g.seeds > 1 else "")]
        for g in found.gaps.itertuples()
    ]
    print_rows(columns, rows, f"Accuracy less that of {found.baseline}, ± half a 95 % interval over seeds")
    rows = [
        [c.model, c.targets, f"{c.pearson:.2f}", f"{c.spearman:.2f}", f"{c.p:.3f}"]
        for c in found.correlations.itertuples()
    ]
    print_rows(["model", "targets", "Pearson", "Spearman", "p"], rows, "Distance and gap: the farther, the larger?")
    if out is not None:
        save_figure(found.figure(), Path(out).with_suffix(".png"))
        content = {key: getattr(found, key).to_dict("records") for key in ("gaps", "correlations")}
        write_json(Path(out).with_suffix(".tradeoff.json"), {"baseline": found.baseline, **content})
