"""The paper's figures of transfer; each takes what was found, and is None where nothing was run for it."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from waterbed_paper.drawing import COLOURS, KINDS, MARKERS, by_eps, legend, line, panels
from waterbed_paper.found import Found, Value, over_seeds
from waterbed_paper.scale import Network, Source

PAPERS = ("cifar10", "cifar100", "imagenet")


def sources_of(found: Found, data: str | None) -> list[Source]:
    """The sources trained on that data set; without one, those trained on none of the paper's."""
    return [s for s in found.scale.sources if (s.data == data if data else s.data not in PAPERS)]


def of_seeds(source: Source, kind: str, value: Value) -> list[float]:
    """The value of every seed of the standard, or of the robust network."""
    eps = 0.0 if kind == "standard" else source.robust
    objective = "standard" if kind == "standard" else "adversarial"
    values = [value(Network(source.name, objective, eps, seed)) for seed in range(source.seeds_at(eps))]
    return [v for v in values if v is not None]


def gap_against_distance(found: Found, data: str | None) -> Figure | None:
    """Figs 3, 7 and 8: robust less standard in mode 0 against the earth mover's distance, a panel a source."""
    rows = {}
    for source in sources_of(found, data):
        points = []
        for target in found.targets(source):
            distance, gaps = found.graph.result(f"distance/{source.name}/{target}"), found.gaps(source, target, "0")
            if distance is not None and gaps:
                points.append((target, distance, over_seeds(target, [*gaps.values()])))
        if points:
            rows[source.name] = points
    if not rows:
        return None
    targets = list(found.scale.transfers.targets)
    figure, axes = panels(1, len(rows), 4.6, 3.6)
    for (name, points), ax in zip(rows.items(), axes[0], strict=True):
        ax.axhline(0, color="#57606a", lw=1, ls=":")
        floors = [distance["floor"] for _, distance, _ in points]
        ax.axvline(sum(floors) / len(floors), color="#57606a", lw=1, ls="--", label="_floor")
        for target, distance, gap in points:
            i = targets.index(target)
            x, colour = distance["value"], COLOURS[i % len(COLOURS)]
            ax.plot([x], [gap.value], MARKERS[i % len(MARKERS)], color=colour, label=target)
            if distance["low"] is not None:
                ax.plot([distance["low"], distance["high"]], [gap.value] * 2, color=colour, lw=1, label="_distance")
            if gap.n > 1:
                ax.plot([x, x], [gap.low, gap.high], color=colour, lw=1, label="_seeds")
        ax.set(xlabel="earth mover's distance", ylabel="accuracy gap [points]", title=name)
    legend(figure, "outside right upper", columns=1)
    return figure


def curves(found: Found, data: str | None) -> Figure | None:
    """Figs 10 to 13: test accuracy after each epoch of fine-tuning, a row a mode, a column a target."""
    found_rows = []
    for source in sources_of(found, data):
        for mode in found.scale.transfers.modes:
            row = {
                target: {kind: of_seeds(source, kind, _history(found, target, mode)) for kind in KINDS}
                for target in found.targets(source)
            }
            if any(any(kinds.values()) for kinds in row.values()):
                found_rows.append((f"{source.name}\nmode {mode}", row))
    if not found_rows:
        return None
    targets = list(dict.fromkeys(t for _, row in found_rows for t in row))
    figure, axes = panels(len(found_rows), len(targets), max(1.9, 6.4 / len(targets)), 1.9)
    for (name, row), line_of_axes in zip(found_rows, axes, strict=True):
        for target, ax in zip(targets, line_of_axes, strict=True):
            for kind, style in KINDS.items():
                for i, history in enumerate(row.get(target, {}).get(kind, [])):
                    label = f"{kind}" if i == 0 else "_seed"
                    look = {"ls": "--" if style == 0 else "-", "marker": MARKERS[style], "ms": 2.5, "lw": 1.1}
                    ax.plot(range(1, len(history) + 1), history, color=COLOURS[style], label=label, **look)
            ax.set_title(f"{name.replace(chr(10), ', ')}\nto {target}", fontsize=7)
            ax.tick_params(labelsize=7)
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            if not ax.lines:
                ax.text(0.5, 0.5, "not run", ha="center", va="center", transform=ax.transAxes, color="#57606a")
        line_of_axes[0].set_ylabel("accuracy [%]", fontsize=8)
    for ax in axes[-1]:
        ax.set_xlabel("epoch", fontsize=8)
    legend(figure)
    return figure


def _history(found: Found, target: str, mode: str) -> Value:
    return found.reader("transfer", lambda r: [record["test_clean"] for record in r["history"]], target, f"mode-{mode}")


def modes(found: Found) -> Figure | None:
    """Fig. 14: test accuracy after fine-tuning in each mode, a row a source, a column a target."""
    rows = {}
    names = list(found.scale.transfers.modes)
    for source in found.scale.sources:
        row = {
            target: {
                kind: {m: v for m in names if (v := of_seeds(source, kind, found.accuracy(target, m)))}
                for kind in KINDS
            }
            for target in found.targets(source)
        }
        row = {target: kinds for target, kinds in row.items() if any(kinds.values())}
        if row:
            rows[source.name] = row
    if not rows:
        return None
    targets = list(dict.fromkeys(t for row in rows.values() for t in row))
    figure, axes = panels(len(rows), len(targets), max(2.0, 5 / len(targets)), 2.3)
    for (name, row), line_of_axes in zip(rows.items(), axes, strict=True):
        for target, ax in zip(targets, line_of_axes, strict=True):
            ax.xaxis.update_units(names)
            for kind, style in KINDS.items():
                points = row.get(target, {}).get(kind, {})
                if points:
                    line(ax, points, kind, style)
            ax.tick_params(labelsize=7)
            if ax.lines:
                ax.set_title(f"{name} to {target}", fontsize=8)
            else:
                ax.set_axis_off()
        next(ax for ax in line_of_axes if ax.lines).set_ylabel("accuracy [%]", fontsize=8)
    for ax in axes[-1]:
        ax.set_xlabel("mode", fontsize=8)
    legend(figure)
    return figure


def against_eps_of_training(found: Found) -> Figure | None:
    """Sec. 5: accuracy on the source, and after fine-tuning on each target, against the eps that the source network was
    trained at; sources of three eps or more."""
    rows = {}
    for source in found.scale.sources:
        quantities = {"the source itself, clean": {"": found.reader("accuracy", lambda r: r["clean"])}}
        for target in found.targets(source):
            names = {m: "linear layer" if m == "linear" else f"mode {m}" for m in found.scale.transfers.modes}
            quantities[target] = {names[m]: found.accuracy(target, m) for m in names if m in ("linear", "0")}
        row = {name: {k: by_eps(source, v) for k, v in kinds.items()} for name, kinds in quantities.items()}
        row = {name: {k: points for k, points in kinds.items() if len(points) > 2} for name, kinds in row.items()}
        row = {name: kinds for name, kinds in row.items() if kinds}
        if len(row) > 1:
            rows[source.name] = row
    if not rows:
        return None
    columns = 3
    each = {name: -(-len(row) // columns) for name, row in rows.items()}
    figure, axes = panels(sum(each.values()), columns, 2.9, 2.4)
    lines_of_axes = iter(axes)
    for name, row in rows.items():
        places = [ax for _ in range(each[name]) for ax in next(lines_of_axes)]
        for ax in places[len(row) :]:
            ax.set_axis_off()
        for ax, (target, kinds) in zip(places, row.items(), strict=False):
            for kind, points in kinds.items():
                line(ax, points, kind or "accuracy on the source", {"": 6, "linear layer": 2, "mode 0": 3}[kind])
            ax.set_title(f"{name}: {target}" if "" in kinds else f"{name} to {target}", fontsize=9)
            ax.set_ylabel("accuracy [%]", fontsize=8)
            ax.set_xlabel("eps of training", fontsize=8)
    legend(figure)
    return figure
