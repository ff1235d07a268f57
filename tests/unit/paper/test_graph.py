"""The graph of experiments: what is done is not done again, what depends on a change is, and failures stay where they
are."""

import json
import signal

import pytest

import waterbed as wb
from waterbed.__main__ import main
from waterbed.errors import StoppedError
from waterbed_paper.graph import Graph, Node, Place, experiment

CALLS: list[str] = []


@experiment(version=1)
def number(place, config):
    CALLS.append(config["name"])
    return {"value": config["value"]}


@experiment(version=1)
def total(place, config):
    CALLS.append("total")
    files = [place.out / "nodes" / f"number/{name}.json" for name in config["of"]]
    return {"value": sum(json.loads(file.read_text())["result"]["value"] for file in files)}


@experiment(version=1)
def broken(place, config):
    raise wb.UsageError("value=7 is unlucky; pass another")


def graph(tmp_path, a=1, b=2):
    nodes = [
        Node("number/a", number, {"name": "a", "value": a}),
        Node("number/b", number, {"name": "b", "value": b}),
        Node("total/ab", total, {"of": "ab"}, ("number/a", "number/b")),
        Node("total/b", total, {"of": "b"}, ("number/b",)),
    ]
    CALLS.clear()
    return Graph(nodes, Place(tmp_path))


def test_what_is_done_is_not_done_again(tmp_path):
    assert graph(tmp_path).run(progress=False) == {}
    assert CALLS == ["a", "b", "total", "total"]
    again = graph(tmp_path)
    assert again.missing() == []
    assert again.run(progress=False) == {}
    assert CALLS == []
    assert again.result("total/ab") == {"value": 3}
    record = json.loads((tmp_path / "nodes/total/ab.json").read_text())
    assert set(record) == {"id", "key", "config", "result", "seconds", "environment"}


def test_a_change_runs_again_only_what_depends_on_it(tmp_path):
    graph(tmp_path).run(progress=False)
    changed = graph(tmp_path, a=5)
    assert changed.missing() == ["number/a", "total/ab"]
    changed.run(progress=False)
    assert CALLS == ["a", "total"]
    assert changed.result("total/ab") == {"value": 7}


def test_another_version_of_the_code_runs_again(tmp_path, monkeypatch):
    graph(tmp_path).run(progress=False)
    monkeypatch.setattr(total, "version", 2)
    assert graph(tmp_path).missing() == ["total/ab", "total/b"]


def test_a_part_runs_with_what_it_needs(tmp_path):
    some = graph(tmp_path)
    assert some.select(["total/b"]) == ["number/b", "total/b"]
    some.run(["total/b"], progress=False)
    assert CALLS == ["b", "total"]
    with pytest.raises(wb.UsageError, match="start with number, total"):
        some.run(["figures"])


def test_failures_stop_only_what_needs_them(tmp_path, capsys):
    nodes = [
        Node("broken/a", broken),
        Node("total/a", total, {}, ("broken/a",)),
        Node("number/b", number, {"name": "b", "value": 2}),
    ]
    some = Graph(nodes, Place(tmp_path))
    failures = some.run()
    assert failures["broken/a"] == "value=7 is unlucky; pass another"
    assert failures["total/a"] == "needs broken/a, which failed"
    assert some.missing() == ["broken/a", "total/a"]
    shown = capsys.readouterr().err
    assert "number/b done" in shown
    assert "broken/a failed" in shown


def test_sigterm_stops_all(tmp_path):
    @experiment(version=1)
    def stopped(place, config):
        raise StoppedError("saved after batch 3")

    nodes = [Node("network/a", stopped), Node("number/b", number, {"name": "b", "value": 2})]
    CALLS.clear()
    with pytest.raises(StoppedError, match="asked to stop in network/a; its state and what had finished is kept"):
        Graph(nodes, Place(tmp_path)).run(progress=False)
    assert CALLS == []


@pytest.mark.parametrize(("signal_of", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_the_command_says_what_it_kept_when_it_is_stopped(tmp_path, monkeypatch, capsys, signal_of, code):
    @experiment(version=1)
    def stopped(place, config):
        signal.raise_signal(getattr(signal, signal_of))

    nodes = [Node("number/b", number, {"name": "b", "value": 2}), Node("network/a", stopped)]
    graph = Graph(nodes, Place(tmp_path))
    monkeypatch.setattr("waterbed_paper.reproduction.open_graph", lambda *arguments: (None, graph))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["paper", "--out", str(tmp_path)]) == code
    finally:
        signal.signal(signal.SIGINT, before)
    assert "nodes/number/b.json is kept; the same command goes on from there" in capsys.readouterr().err
    assert graph.missing() == ["network/a"]


def test_several_at_a_time(tmp_path):
    some = graph(tmp_path)
    assert some.run(processes=2, progress=False) == {}
    assert some.missing() == []
    assert some.result("total/ab") == {"value": 3}


@pytest.mark.filterwarnings("ignore")  # submitit leaves its log files to the garbage collector
def test_as_jobs_of_submitit(tmp_path):
    pytest.importorskip("submitit")
    some = graph(tmp_path)
    assert some.run(["total/b"], launcher="debug", progress=False) == {}
    assert some.result("total/b") == {"value": 2}


def test_wrong_graphs_and_damaged_results(tmp_path):
    with pytest.raises(wb.UsageError, match="before what it needs"):
        Graph([Node("total/a", total, {}, ("number/a",))], Place(tmp_path))
    with pytest.raises(wb.UsageError, match="launcher='cloud'"):
        graph(tmp_path).run(launcher="cloud")
    graph(tmp_path).run(progress=False)
    (tmp_path / "nodes/number/a.json").write_text("{")
    with pytest.raises(wb.UsageError, match=r"a.json' is damaged"):
        graph(tmp_path).missing()


def test_a_misspelt_experiment_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(
        wb.UsageError, match=r"only='totl/ab' names no experiment; start with number, total; nearest are total/ab"
    ):
        graph(tmp_path).run(["number/a", "totl/ab"], progress=False)
    assert CALLS == []


def test_a_record_of_doit_that_a_kill_tore_keeps_nothing_from_running(tmp_path):
    for content in ("", '{"number/a": {"resu'):
        (tmp_path / ".doit.json").write_text(content)
        assert graph(tmp_path, a=len(content)).run(progress=False) == {}
        assert graph(tmp_path, a=len(content)).missing() == []


def test_experiments_that_doit_did_not_run_are_no_success(tmp_path, monkeypatch):
    monkeypatch.setattr("waterbed_paper.graph.DoitMain.run", lambda self, words: 3)
    with pytest.raises(wb.UsageError, match="code 3 before 4 of 4 experiments"):
        graph(tmp_path).run(progress=False)
