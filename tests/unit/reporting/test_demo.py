"""The main job in its quick form."""

import json
import re

from waterbed.reporting.demo import QUICK, demo, summary_table


def test_quick_demo(tmp_path):
    results = demo(tmp_path / "demo", QUICK, progress=False)
    written = json.loads((tmp_path / "demo/results.json").read_text())
    assert written == json.loads(json.dumps(results))
    assert set(written) == {"standard", "robust", "environment", "config", "seconds"}
    for name in ("standard", "robust"):
        part = written[name]
        assert 0 <= part["robust_accuracy"] <= part["clean_accuracy"] <= 100
        for key in ("input_fisher_trace", "weight_log_variance"):
            assert {"value", "stderr", "n", "unit", "method"} <= set(part[key])
            assert part[key]["n"] == 50
        assert set(part["inversion"]) == {"plain", "variational", "effective"}
        assert 0 <= part["transfer"]["digits"] <= 100
        assert part["weight_norm"] > 0
        assert (tmp_path / "demo/runs" / name / "weights.safetensors").is_file()
    page = (tmp_path / "demo/report.html").read_text()
    assert page.count('<img src="data:image/png;base64,') == 3
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    for cell in summary_table(results).rows[0][1:]:
        assert cell in page
    again = demo(tmp_path / "demo", QUICK, progress=False)
    assert again["robust"]["clean_accuracy"] == results["robust"]["clean_accuracy"]
    assert again["robust"]["weight_log_variance"] == results["robust"]["weight_log_variance"]
