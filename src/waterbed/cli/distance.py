"""distance: between data sets, in the features of a network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tyro.conf import Positional

from waterbed.cli.options import Fetch, Force, Root, Words, Workers
from waterbed.cli.output import is_first_process, print_rows, say_written, write_json
from waterbed.errors import UsageError, check_number
from waterbed.files import check_output, is_json_of


@dataclass
class Distance:
    """Earth mover's distance between data sets in the features of one network; symmetric, unlike accuracy gaps."""

    NAMES_DATA: ClassVar[str] = ""

    data: Positional[Words]
    """Two or more data sets or folders."""
    extractor: str
    """Run folder or exported network whose features are compared; distances from different ones do not compare."""
    num_samples: int | None = 5000
    """Training images of each set; all if there are fewer."""
    min_source_count: int = 0
    """Leave out classes with fewer images in the first set of a pair."""
    gamma: float = 0.01
    """Of the similarity exp(-gamma distance), as in the paper; it means nothing across extractors."""
    root: Root = None
    download: Fetch = False
    workers: Workers = 0
    seed: int = 0
    """Seed of the choice of images."""
    out: str | None = None
    """A JSON file for the results; beside it a PNG file of the same name draws them."""
    force: Force = False

    def __call__(self) -> Any:
        import math
        from dataclasses import asdict
        from itertools import combinations

        from waterbed import dataset_distance, load_model
        from waterbed.distributed import Engine
        from waterbed.plots import is_our_png, save_figure
        from waterbed.transfer_learning.distance import distances_figure
        from waterbed.transfer_learning.transfer import load_for

        check_number("gamma", self.gamma, at_least=0)
        if len(self.data) < 2:
            raise UsageError(f"data={self.data!r} names {len(self.data)} set(s); a distance is between two or more")
        picture = None
        if self.out is not None:
            out = check_output(self.out, is_json_of("extractor", "pairs"), self.force)
            picture = check_output(out.with_suffix(".png"), is_our_png, self.force)
        model = load_model(self.extractor, download=self.download).to(Engine().device)
        loaded = [load_for(model, name, self.root) for name in self.data]
        rows, results, distances = [], [], {}
        how = {"seed": self.seed, "workers": self.workers, "progress": True}
        for a, b in combinations(loaded, 2):
            d = dataset_distance(a, b, model, self.num_samples, self.min_source_count, **how)
            similarity = math.exp(-self.gamma * d.value)
            interval = f"[{d.low:.4g}, {d.high:.4g}]"
            numbers = [f"{d.value:.4g}", f"{d.corrected:.4g}", interval, f"{d.floor:.3g}", f"{similarity:.4g}"]
            rows.append([a.name, b.name, *numbers])
            distances[f"{a.name} and {b.name}"] = d
            results.append({"source": a.name, "target": b.name, "similarity": similarity, **asdict(d)})
        content = {"extractor": self.extractor, "pairs": results}
        write_json(self.out, content)
        if picture is not None and is_first_process():
            save_figure(distances_figure(distances), picture)
        columns = ["from", "to", "distance", "corrected", "95 % interval", "floor", "similarity"]
        title = f"Distance in the features of {self.extractor}; corrected: for the bias of class means, with its "
        print_rows(columns, rows, f"{title}interval; floor: two halves of one set")
        say_written(self.out, picture)
        return content


def read_distances(path: str, targets: Sequence[str]) -> dict[str, float]:
    """Distance of each target, by its name, from the first set of a file that ``waterbed distance`` wrote."""
    try:
        pairs = json.loads(Path(path).expanduser().read_text())["pairs"]
        source = pairs[0]["source"]
        distances = {pair["target"]: float(pair["value"]) for pair in pairs if pair["source"] == source}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        reason = type(error).__name__
        raise UsageError(f"distances={path!r} is not a file that waterbed distance --out wrote ({reason})") from error
    names = {target: target if target in distances else Path(target).name for target in targets}
    if missing := [target for target, name in names.items() if name not in distances]:
        raise UsageError(
            f"distances={path!r} has {', '.join(distances)} from {source}, but not {', '.join(missing)}; "
            f"run waterbed distance with them, too"
        )
    return distances | {target: distances[name] for target, name in names.items()}
