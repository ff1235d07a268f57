"""Every claim is registered once, with evidence; figures and tables speak to claims that there are."""

import re
from dataclasses import replace

import pytest

import waterbed as wb
from waterbed_paper.claims import Claim
from waterbed_paper.register import CLAIMS, FIGURES, GROUPS, TABLES, register_claims, register_parts
from waterbed_paper.verdicts import verdict

CLAIM = CLAIMS["waterbed"]


def figures(*parts, order=("fig-4", "fig-5")):
    return register_parts("figure", parts, lambda figure: figure.name, order, CLAIMS)


@pytest.fixture
def two():
    return [figure for figure in FIGURES if figure.name in ("fig-4", "fig-5")]


def test_a_claim_is_registered_once():
    assert register_claims({"one": [CLAIM]}) == {"waterbed": CLAIM}
    with pytest.raises(wb.UsageError, match="claim id='waterbed' is there twice"):
        register_claims({"one": [CLAIM], "two": [replace(CLAIM, where="Sec. 2")]})


def test_a_claim_has_evidence():
    with pytest.raises(TypeError, match="evidence"):
        Claim(id="new", where="Sec. 1", sentence="It is so.", quantity="how much", test="above 0 supports")
    with pytest.raises(wb.UsageError, match="claim id='waterbed' has no evidence"):
        register_claims({"one": [replace(CLAIM, evidence=None)]})


def test_figures_and_tables_speak_to_claims_that_there_are(two):
    with pytest.raises(wb.UsageError, match=r"figure 'fig-4': the claim='fig-44' is unknown.*did you mean 'fig-4'"):
        figures(replace(two[0], claims=("fig-4", "fig-44")), two[1])
    table = replace(TABLES[0], claims=("far-taks",))
    with pytest.raises(wb.UsageError, match=r"table '1': the claim='far-taks' is unknown.*did you mean 'far-tasks'"):
        register_parts("table", [table], lambda table: table.number, ["1"], CLAIMS)


def test_figures_come_in_the_order_of_the_page(two):
    assert figures(two[1], two[0]) == tuple(two)
    with pytest.raises(wb.UsageError, match="figure='fig-4' is there twice"):
        figures(*two, two[0])
    with pytest.raises(wb.UsageError, match="figure='fig-5' is in the order alone"):
        figures(two[0])
    with pytest.raises(wb.UsageError, match="figure='fig-5' is not in the order"):
        figures(*two, order=("fig-4",))


def test_every_topic_is_registered():
    """A file of the topics that no list names would go unseen."""
    import pkgutil
    from importlib import import_module

    from waterbed_paper import topics

    modules = [import_module(f"waterbed_paper.topics.{m.name}") for m in pkgutil.iter_modules(topics.__path__)]
    everything = {"CLAIMS": [*CLAIMS.values()], "FIGURES": FIGURES, "TABLES": TABLES}
    for name, registered in everything.items():
        parts = [part for module in modules for part in getattr(module, name, ())]
        assert len(parts) == len(registered)
        assert all(part in registered for part in parts)
    assert [claim for group in GROUPS.values() for claim in group] == everything["CLAIMS"]


def test_claims_are_one_sentence_and_say_what_would_contradict_them():
    figures = {int(n) for c in CLAIMS.values() for n in re.findall(r"Figs?\.? (\d+)", c.where)}
    assert figures >= set(range(1, 15))
    for claim in CLAIMS.values():
        assert claim.sentence[0].isupper()
        assert claim.sentence.endswith(".")
        assert not re.search(r"\. [A-Z]", claim.sentence), claim.id
        assert "support" in claim.test, claim.id
        assert "contradict" in claim.test, claim.id
        assert not claim.quantity.endswith("."), claim.id
        assert verdict(1000, 1001, claim.holds_above) == "holds"
        assert verdict(-1001, -1000, claim.holds_above) == "does not hold"
