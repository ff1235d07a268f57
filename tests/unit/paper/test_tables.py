"""The paper's tables with our numbers beside, from results that are made up."""

import re

from waterbed_paper.register import TABLES
from waterbed_paper.tables import standing_in


def test_published_and_ours_stand_in_one_cell(written):
    _, results, _, _, _ = written
    by_number = {table.number: table.section(results).tables[0] for table in TABLES}
    table = by_number["1"]

    def cell_of(table, name, column=1):
        return next(row for row in table.rows if row[0] == name)[column]

    assert table.columns[:3] == ["source to target", "mode 0, robust", "mode 0, standard"]
    cell = cell_of(table, "cifar10 to svhn")
    assert cell.published == "58.34"
    assert re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d; \[\d+\.\d, \d+\.\d\] of [\d,]+", cell.ours)
    more = cell_of(table, "cifar10 to digits")
    assert more.published == "–"
    assert by_number["2"].rows[0][1].ours == "not run"
    assert "resnet10 of width 4, 2 epochs" in table.caption
    assert "at most 1,000 training images of the target" in table.caption


def test_both_protocols_stand_side_by_side(results_in, whole_scale, tmp_path):
    scale = whole_scale.replace("[transfers]", "[transfers]\nboth_protocols = { linear = 2, 0 = 2 }")
    results = results_in(tmp_path / "out", scale)
    sections = {table.number: table.section(results) for table in TABLES}
    parts = sections["1"].tables
    assert [
        p in table.caption for table, p in zip(parts, ("Tuned on held-out", "appendix C: 120", "schedule"), strict=True)
    ]
    cells = [next(row for row in table.rows if row[0] == "cifar10 to svhn")[1] for table in parts]
    assert {cell.published for cell in cells} == {"58.34"}
    assert len({cell.ours for cell in cells}) == 3
    assert 62 < float(cells[0].ours.split()[0]) < 68, "tuned"
    assert 52 < float(cells[1].ours.split()[0]) < 58, "the paper's"
    assert all(re.search(r"; \[\d+\.\d, \d+\.\d\] of 26,032$", cell.ours) for cell in cells)
    assert "protocols/cifar10/" in sections["1"].command
    gaps = sections["8"].tables
    assert [table.columns[1:] for table in gaps] == [["mode 0"], ["mode 0"], ["mode 0", "mode 1", "mode 2"]]
    assert re.search(r"; images ± 0\.\d$", next(r for r in gaps[0].rows if r[0] == "cifar10 to svhn")[1].ours)


def test_one_seed_says_so(written):
    table = next(table for table in TABLES if table.number == "3").section(written[1]).tables[0]
    ours = {row[0]: row[1].ours for row in table.rows}
    assert ours["for ResNet-18, cifar100 to svhn"].split(";")[0].endswith("(one seed)")
    assert ours["for ResNet-50, cifar100 to svhn"] == "not run"


def test_the_pair_of_sizes_stands_for_the_papers(written):
    scale = written[1].scale
    assert standing_in(scale, "cifar100", "resnet50", sized=True).name == "large"
    assert standing_in(scale, "cifar100", "resnet18", sized=True).name == "small"
    assert standing_in(scale, "imagenet", "resnet50", sized=False) is None
