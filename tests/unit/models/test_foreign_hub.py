"""Hugging Face repositories: nothing is downloaded unasked; the hub itself is replaced, the network never used."""

import json
import sys

import pytest
import torch
from tests.unit.models.test_foreign import MEAN, STD, CifarNet, agree, saved, trained

import waterbed as wb


def hub(files, monkeypatch, cached=()):
    """Replace the download by files of a folder; the calls are recorded as (repository, file, from cache alone)."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    calls = []

    def hf_hub_download(repository, name, local_files_only=False):
        calls.append((repository, name, local_files_only))
        if local_files_only and name not in cached:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not cached")
        if not (files / name).is_file():
            raise huggingface_hub.errors.EntryNotFoundError("404")
        return str(files / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return calls


def test_repository_is_downloaded_only_when_asked(tmp_path, monkeypatch):
    images = torch.rand(4, 3, 32, 32, dtype=torch.float64)
    network = trained(CifarNet())
    saved({"state_dict": network.state_dict()}, tmp_path / "pytorch_model.bin")
    config = {"architecture": "resnet18", "pretrained_cfg": {"mean": MEAN.tolist(), "std": STD.tolist()}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    calls = hub(tmp_path, monkeypatch)
    for source in ("auto", "huggingface"):
        with pytest.raises(wb.UsageError, match=r"'owner/name'.*pass download=True"):
            wb.load_model("owner/name", source)
    assert all(cache_only for _, _, cache_only in calls)
    loaded = wb.load_model("owner/name", download=True)
    assert agree(loaded, network, images)
    assert loaded.loading["normaliser"] == "checkpoint"
    assert "config.json" in loaded.loading["notes"][0]
    given = wb.load_model("owner/name", "huggingface", mean=0, std=1, download=True)
    assert given.loading == {"source": "huggingface", "normaliser": "given", "notes": []}


def test_cached_repository_needs_no_download_and_keeps_our_card(tmp_path, tiny, monkeypatch):
    wb.save_model(tiny, tmp_path / "model.safetensors")
    calls = hub(tmp_path, monkeypatch, cached=("model.safetensors", "model.json"))
    loaded = wb.load_model("owner/name")
    assert torch.equal(loaded.head.weight, tiny.head.weight)
    assert loaded.architecture == tiny.architecture
    assert [name for _, name, _ in calls] == ["model.safetensors", "model.json", "config.json"]


def test_repositories_that_cannot_be_had(tmp_path, monkeypatch):
    hub(tmp_path, monkeypatch)
    with pytest.raises(wb.UsageError, match=r"has none of model\.safetensors"):
        wb.load_model("owner/name", download=True)
    with pytest.raises(wb.UsageError, match="is no Hugging Face repository"):
        wb.load_model("name", "huggingface")

    def offline(*args, **settings):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(wb.UsageError, match=r"cannot be fetched .*no route"):
        wb.load_model("owner/name", download=True)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(wb.UsageError, match="pip install huggingface_hub"):
        wb.load_model("owner/name", "huggingface")
