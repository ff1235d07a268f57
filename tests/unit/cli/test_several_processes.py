"""Commands that several processes run: the first prints and writes."""

import pytest

from waterbed.__main__ import main


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_first_process_prints_and_writes(monkeypatch, tmp_path, capsys, rank):
    from waterbed.cli.output import write_text

    monkeypatch.setenv("RANK", rank)
    write_text(tmp_path / "text", "text")
    assert (tmp_path / "text").exists() == (rank == "0")
    assert main(["data"]) == 0
    assert bool(capsys.readouterr().out) == (rank == "0")
