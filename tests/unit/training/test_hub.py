"""Publishing runs and reading them back, on a server of the Hub's protocol on the loopback address."""

import os
import subprocess
import sys

import pytest
import torch
from tests.hub_server import TOKEN, Hub, use

import waterbed as wb

# Of the client itself, when it uploads.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with Hub() as server:
        use(server.address, tmp_path / "cache", monkeypatch)
        yield server


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    data = wb.load_dataset("digits").take(64, 20)
    model = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)
    attack = wb.PGD(eps=0.5, steps=1)
    out = tmp_path_factory.mktemp("published") / "robust"
    settings = {"epochs": 1, "watch": 10, "progress": False, "precision": "fp32"}
    notes = {"source": {"name_or_folder": "/home/me/secret-folder"}}
    return wb.fit(model, data, wb.AdversarialTraining(attack), out=out, notes=notes, **settings), data


def card(server, repository="me/robust"):
    return huggingface_hub.ModelCard(server.files(repository)["README.md"].decode())


def test_a_run_comes_back_bit_for_bit(hub, trained, capfd):
    run, data = trained
    score = wb.evaluate(run.model, data.test, [wb.PGD(eps=0.5, steps=2)])
    measures = wb.measure(run.model, data, 10, quantities=["input_fisher_trace"])
    page = run.push_to_hub("me/robust", evaluation=score, measures=measures, license="mit", token=TOKEN)
    assert page == f"{hub.address}/me/robust"
    with pytest.raises(wb.UsageError, match=r"'me/robust' is not in the local .*pass download=True"):
        wb.Run.from_pretrained("me/robust")
    again = wb.Run.from_pretrained("me/robust", download=True)
    assert again.config == {k: v for k, v in run.config.items() if k != "source"}
    assert again.history == run.history
    state = run.model.state_dict()
    assert all(torch.equal(state[name].cpu(), tensor) for name, tensor in again.model.state_dict().items())
    assert again.model.state_dict().keys() == state.keys()
    asked = len(hub.requests)
    cached = wb.Run.from_pretrained("me/robust")
    assert torch.equal(cached.model.head.weight, again.model.head.weight)
    named = wb.Run.load("hf:me/robust:model.safetensors")
    assert named.config == again.config
    assert len(hub.requests) == asked, "the cache answers without a connection"
    everything = b"".join(content for files in hub.repositories["me/robust"] for content in files[1].values())
    assert b"secret-folder" not in everything
    assert TOKEN.encode() not in everything
    assert TOKEN not in "".join(capfd.readouterr())


def test_the_card_has_the_measured_numbers(hub, trained):
    run, data = trained
    score = wb.evaluate(run.model, data.test, [wb.PGD(eps=0.5, steps=2)])
    measures = wb.measure(run.model, data, 10, quantities=["input_fisher_trace"])
    run.push_to_hub("me/robust", evaluation=score, measures=measures, license="mit", token=TOKEN)
    read = card(hub)
    assert read.data.library_name == "waterbed"
    assert read.data.license == "mit"
    assert read.data.datasets == ["digits"]
    assert "adversarial" in read.data.tags
    results = {r.metric_name: r.metric_value for r in read.data.eval_results}
    robust = score.robust["pgd-2 l2 eps=0.5"]
    assert results == {"clean": round(float(score.clean), 2), "pgd-2 l2 eps=0.5": round(float(robust), 2)}
    estimate = measures["input_fisher_trace"]
    row = f"| input_fisher_trace | {estimate.value:.6g} | {estimate.stderr:.2g} | nats/pixel^2 | 10 |"
    assert row in read.text
    assert f"[{score.clean.low:.2f}, {score.clean.high:.2f}] | 20 |" in read.text
    assert 'wb.Run.from_pretrained("me/robust", download=True)' in read.text
    assert "| epochs | 1 |" in read.text
    assert "| train images | 64 |" in read.text
    assert "width 2" in read.text
    assert "| torch | " in read.text


def test_standard_attacks_are_named_once(hub, trained):
    run, data = trained
    report = wb.evaluate_standard(run.model, data.test, 0.5, num_samples=2, autoattack="never")
    run.push_to_hub("me/robust", evaluation=report, token=TOKEN)
    assert [r.metric_name for r in card(hub).data.eval_results] == [
        "clean",
        "pgd-20 l2 eps=0.5",
        "pgd-100 x5 l2 eps=0.5",
    ]


def test_results_of_the_commands_are_found_in_the_folder(hub, trained):
    from waterbed.__main__ import main

    run, _ = trained
    common = [str(run.path), "--data", "digits"]
    files = {name: run.path / f"{name}.json" for name in ("evaluation", "measures")}
    try:
        assert (
            main(["evaluate", *common, "--steps", "1", "--num-samples", "10", "--out", str(files["evaluation"])]) == 0
        )
        quantities = ["--quantities", "input_fisher_trace", "--num-samples", "8"]
        assert main(["measure", *common, *quantities, "--out", str(files["measures"])]) == 0
        run.push_to_hub("me/robust", token=TOKEN)
        assert "| pgd-1 l2 eps=0.5 |" in card(hub).text
        assert "| input_fisher_trace |" in card(hub).text
        files["measures"].write_text('{"another": {}, "third": {}}')
        with pytest.raises(wb.UsageError, match=r"measures\.json' holds no results of this run"):
            run.push_to_hub("me/robust", token=TOKEN)
    finally:
        for file in files.values():
            file.unlink(missing_ok=True)
    run.push_to_hub("me/robust", token=TOKEN, message="without them")
    assert hub.repositories["me/robust"][-1][0] == "without them"
    assert [r.metric_name for r in card(hub).data.eval_results] == [
        "clean, at the end of training",
        "robust, at the end of training",
    ]


def test_a_commit_is_named_by_its_revision(hub, trained):
    run, _ = trained
    run.push_to_hub("me/robust", token=TOKEN)
    first = hub.head("me/robust")
    other = wb.Run(
        wb.create_model("resnet10", 10, width=2, in_channels=1, seed=5).eval(), run.history, None, run.config
    )
    other.push_to_hub("me/robust", token=TOKEN)
    newest = wb.Run.from_pretrained("me/robust", download=True)
    assert torch.equal(newest.model.head.weight, other.model.head.weight)
    before = wb.load_model(f"hf:me/robust@{first}:model.safetensors", download=True)
    assert torch.equal(before.head.weight, run.model.head.weight.cpu())
    with pytest.raises(wb.UsageError, match=r"cannot be fetched .*"):
        wb.load_model("hf:me/robust@nowhere", download=True)


def test_private_repositories_and_tokens(hub, trained, monkeypatch):
    run, _ = trained
    run.push_to_hub("me/secret", private=True, token=TOKEN)
    assert "me/secret" in hub.private
    with pytest.raises(wb.UsageError, match=r"cannot be fetched .*for a private repository, the token") as caught:
        wb.Run.from_pretrained("me/secret", download=True)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    wb.Run.from_pretrained("me/secret", download=True)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    for token in (None, "hf_WrongAndSecret"):
        with pytest.raises(wb.UsageError, match=r"repo_id='me/robust' cannot be written .*HF_TOKEN") as caught:
            run.push_to_hub("me/robust", token=token)
        assert "hf_WrongAndSecret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_token_in_an_error_is_not_shown(hub, trained, monkeypatch):
    def careless(*_, **__):
        raise ConnectionError(f"cannot send Authorization: Bearer {TOKEN}")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", careless)
    with pytest.raises(wb.UsageError, match=r"Bearer \*\*\*") as caught:
        trained[0].push_to_hub("me/robust", token=TOKEN)
    assert TOKEN not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", careless)
    with pytest.raises(wb.UsageError, match=r"Bearer \*\*\*"):
        wb.load_model("hf:me/robust:a.pt", download=True)


def test_without_a_connection(tmp_path, trained, monkeypatch):
    with Hub() as server:
        address = server.address
    use(address, tmp_path / "cache", monkeypatch)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between attempts
    run, _ = trained
    with pytest.raises(wb.UsageError, match=r"repo_id='me/robust' cannot be written .*check the name, the connection"):
        run.push_to_hub("me/robust", token=TOKEN)
    for name in ("me/robust", "hf:me/robust:model.safetensors"):
        with pytest.raises(wb.UsageError, match=r"cannot be fetched .*check the name, the connection") as caught:
            wb.load_model(name, download=True)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(wb.UsageError, match=r"cannot be fetched .*(OfflineModeIsEnabled|LocalEntryNotFoundError)"):
        wb.load_model("me/robust", download=True)


def test_wrong_arguments(hub, trained):
    run, _ = trained
    cases = {
        "repo_id='robust' is no name": lambda: run.push_to_hub("robust"),
        "does not record its training": lambda: wb.Run(run.model).push_to_hub("me/robust"),
        "evaluation=int must be": lambda: run.push_to_hub("me/robust", evaluation=3),
        "measures=int must be": lambda: run.push_to_hub("me/robust", measures=3),
        "is no Hugging Face repository": lambda: wb.Run.from_pretrained("robust"),
    }
    for said, action in cases.items():
        with pytest.raises((ValueError, TypeError), match=said):
            action()
    assert not hub.requests


def test_another_process_reads_it_by_hf_endpoint(hub, trained, tmp_path):
    run, _ = trained
    run.push_to_hub("me/robust", token=TOKEN)
    code = "import waterbed as wb; run = wb.Run.from_pretrained('me/robust', download=True)"
    code += "; print(float(run.model.head.weight.detach().sum()))"
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == float(run.model.head.weight.detach().sum())
