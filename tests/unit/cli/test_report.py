"""report: one page about runs."""

import re

from waterbed.__main__ import main


def test_report_is_one_file(runs, tmp_path):
    assert main(["report", str(runs / "standard"), str(runs / "robust"), "--out", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page), "nothing is fetched from elsewhere"
    assert page.count("<img") == page.count('alt="Line plot') == 2
