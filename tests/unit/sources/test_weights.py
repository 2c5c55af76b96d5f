"""Weights that other libraries have downloaded are found in their caches."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from transfer_model import backbones
from transfer_model.errors import WeightsError
from transfer_platform.errors import SourceError
from transfer_platform.paths import cache_folder
from transfer_platform.sources.weights import fetch_weights

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HUB_URL = "https://huggingface.co/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"


@pytest.fixture
def hub(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of Hugging Face, without network access."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(isolated / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return isolated / "hub"


@pytest.fixture
def checkpoints(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which torch.hub stores weights."""
    monkeypatch.setenv("TORCH_HOME", str(isolated / "torch"))
    folder = isolated / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONTENT)
    return path


def write_to_hub(hub: Path, repository: str, name: str) -> Path:
    """Stores a file as huggingface_hub does: a blob, a snapshot that links to it, and a branch."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    blob = write(folder / "blobs" / SHA256)
    snapshot = folder / "snapshots" / "0a1b2c" / name
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(blob)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0a1b2c")
    return snapshot


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_file_in_the_cache_of_hugging_face_is_used(name: str, hub: Path) -> None:
    file = write_to_hub(hub, "timm/test_resnet.r160_in1k", name)
    found = fetch_weights("timm/test_resnet", "default", Path())
    assert (found.name, found.path, found.sha256) == ("r160_in1k", file, SHA256)


def test_of_a_network_that_is_published_twice_both_caches_are_searched(hub: Path, checkpoints: Path) -> None:
    file = write_to_hub(hub, "timm/resnet18.a1_in1k", "model.safetensors")
    write(checkpoints / "resnet18_a1_0-d63eafa0.pth")
    assert fetch_weights("timm/resnet18", "a1_in1k", Path()).path == file


@pytest.mark.parametrize("digits", [SHA256[:8], "00000000"])
def test_a_file_in_the_cache_of_torch_hub_is_used_if_its_checksum_is_right(
    digits: str, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:9/resnet18-{digits}.pth"
    official = backbones.torchvision_weights("resnet18")["IMAGENET1K_V1"]
    published = {"IMAGENET1K_V1": SimpleNamespace(url=url, transforms=official.transforms)}
    monkeypatch.setattr(backbones, "torchvision_weights", lambda architecture: published)
    file = write(checkpoints / f"resnet18-{digits}.pth")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    if SHA256.startswith(digits):
        assert fetch_weights("resnet18", "IMAGENET1K_V1", Path()).path == file
    else:
        with pytest.raises(SourceError, match="could not be downloaded") as raised:
            fetch_weights("resnet18", "IMAGENET1K_V1", Path())
        assert str(raised.value).endswith(f"{file} was not used: its sha256 is {SHA256}, expected {digits}; delete it")


def test_a_file_that_was_downloaded_before_stays_in_use(hub: Path) -> None:
    """Otherwise a study would become another one when another program fills its cache."""
    folder = cache_folder() / "downloads" / hashlib.sha256(HUB_URL.encode()).hexdigest()[:16]
    own = write(folder / "model.safetensors")
    write_to_hub(hub, "timm/test_resnet.r160_in1k", "model.safetensors")
    assert fetch_weights("timm/test_resnet", "default", Path()).path == own


def test_offline_only_caches_and_mirrors_are_used(hub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not tried because HF_HUB_OFFLINE is set"):
        fetch_weights("timm/test_resnet", "default", Path())
    mirrored = write(
        tmp_path / "mirror" / "huggingface.co" / "timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
    )
    monkeypatch.setenv("PLATFORM_MIRROR", str(tmp_path / "mirror"))
    assert fetch_weights("timm/test_resnet", "default", Path()).path == mirrored


@pytest.mark.usefixtures("isolated")
def test_a_folder_is_not_reported_as_missing(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").mkdir()
    with pytest.raises(WeightsError, match=rf"{tmp_path}/weights\.pth is a folder; specify a weights file in it"):
        fetch_weights("timm/test_resnet", "weights.pth", tmp_path)
