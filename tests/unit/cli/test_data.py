"""data: the list and one's own folder."""

from waterbed.__main__ import main


def test_data_lists_and_describes(runs, capsys):
    assert main(["data"]) == 0
    assert "fashion-mini" in capsys.readouterr().out
    assert main(["data", str(runs / "data"), "--size", "8"]) == 0
    assert "3 x 8 x 8" in capsys.readouterr().out
