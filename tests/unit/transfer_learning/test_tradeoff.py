"""Gaps are paired by seed, and their correlation with distance is what it should be."""

import math

import pytest

import waterbed as wb


def table(gaps, seeds=3):
    """Accuracies that differ between seeds, with the given gap of "robust" to "standard" on each target."""
    rows = [
        {
            "model": model,
            "target": target,
            "mode": 0,
            "seed": seed,
            "accuracy": 50 + 7 * seed + gap * (model == "robust"),
        }
        for target, gap in gaps.items()
        for model in ("standard", "robust")
        for seed in range(seeds)
    ]
    return wb.TransferTable(rows)


def test_gaps_are_paired_by_seed():
    result = wb.trade_off(table({"near": -2.0, "far": 5.0}), {"near": 1.0, "far": 3.0})
    assert result.gaps["gap"].tolist() == pytest.approx([-2, 5])
    assert result.gaps["half_width"].tolist() == pytest.approx([0, 0], abs=1e-9), "what seeds share drops out"
    assert math.isnan(result.correlations["pearson"][0]), "two targets say nothing"


def test_the_gap_has_an_interval_over_test_images_too():
    rows = table({"near": -2.0}).rows
    assert math.isnan(wb.trade_off(wb.TransferTable(rows), {"near": 1.0}).gaps["half_over_images"][0])
    means = [sum(row["accuracy"] for row in rows if row["model"] == m) / 3 / 100 for m in ("standard", "robust")]
    result = wb.trade_off(wb.TransferTable([{**row, "n": 200} for row in rows]), {"near": 1.0})
    expected = 196 * math.sqrt(sum(p * (1 - p) for p in means) / 200)
    assert result.gaps["half_over_images"][0] == pytest.approx(expected, rel=1e-4)


def test_the_correlation_and_its_chance():
    gaps = {"a": -3.0, "b": -1.0, "c": 0.0, "d": 2.0, "e": 6.0}
    distances = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 6}
    result = wb.trade_off(table(gaps), distances)
    row = result.correlations.iloc[0]
    assert row["spearman"] == pytest.approx(1)
    assert row["p"] == pytest.approx(1 / 120), "of all orders, this one alone"
    against = wb.trade_off(table({k: -v for k, v in gaps.items()}), distances).correlations.iloc[0]
    assert against["pearson"] == pytest.approx(-row["pearson"])
    assert against["p"] == pytest.approx(1)
    assert result.plot().axes[0].get_ylabel().startswith("accuracy minus that of standard")


def test_wrong_use():
    with pytest.raises(wb.UsageError, match="baseline='plain'"):
        wb.trade_off(table({"a": 1.0}), {"a": 1.0}, "plain")
    with pytest.raises(wb.UsageError, match="lacks"):
        wb.trade_off(table({"a": 1.0}), {})


def test_one_seed_has_no_interval():
    assert math.isnan(wb.trade_off(table({"a": 1.0}, seeds=1), {"a": 1.0}).gaps["half_width"][0])
