"""The figures of the page, drawn from results that are made up."""

import pytest

from waterbed_paper.register import FIGURES


@pytest.mark.parametrize("paper_figure", FIGURES, ids=lambda paper_figure: paper_figure.name)
def test_a_line_of_the_legend_looks_alike_in_all_panels(written, paper_figure):
    figure = paper_figure.draw(written[1])
    looks = {}
    for ax in figure.axes if figure is not None and figure.legends else ():
        for one in ax.lines:
            if not one.get_label().startswith("_"):
                looks.setdefault(one.get_label(), set()).add((one.get_color(), one.get_marker(), one.get_linestyle()))
    assert all(len(look) == 1 for look in looks.values())
    assert len(set.union(set(), *looks.values())) == len(looks), "two lines that look alike"
