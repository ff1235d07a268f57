"""measure: quantities by name, with their errors."""

import json
import re

from waterbed.__main__ import main


def test_measure_writes_estimates_with_errors(runs, tmp_path, capsys):
    out = tmp_path / "m.json"
    assert main(f"measure {runs}/standard {runs}/robust --num-samples 10 --out {out}".split()) == 0
    content = json.loads(out.read_text())
    for run in ("standard", "robust"):
        estimate = content[run]["weight_log_variance"]
        assert estimate["n"] == 10
        assert estimate["stderr"] > 0
        assert estimate["unit"] == "nats"
        assert "damping 1e-08" in estimate["method"]
    assert "input_fisher_trace" in capsys.readouterr().out


def test_measure_takes_any_quantity(runs, tmp_path, capsys):
    names = "kl_curvature_ratio gaussian_curvature_ratio weight_information weight_fisher_logdet effective_information"
    words = (
        f"measure {runs}/robust --num-samples 6 --out {tmp_path}/m.json --quantities {names} weight_fisher_lambda_max"
    )
    assert main([*words.split(), "input_fisher_relative_trace"]) == 0
    content = json.loads((tmp_path / "m.json").read_text())["robust"]
    for name in names.split():
        left_out = re.search(r"(\d+) inputs with S = 0 left out", content[name]["method"])
        assert content[name]["n"] + (int(left_out[1]) if left_out else 0) == 6
        assert content[name]["value"] == content[name]["value"], "not nan"
    assert main(["measure", f"{runs}/robust", "--quantities", "entropy"]) == 2
    assert "--quantities 'entropy' is unknown" in capsys.readouterr().err
