"""Environment variables of Hugging Face and torch, which their libraries read when they are imported."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Site

REPOSITORY = "timm/resnet18.a1_in1k"


def fetch_in_fresh_process(folder: Path, **variables: str) -> str:
    """Returns the path of the weights, or the error message."""
    code = (
        "from pathlib import Path\n"
        "from transfer_platform.sources.weights import fetch_weights\n"
        "print(fetch_weights('timm/resnet18', 'a1_in1k', Path()).path)\n"
    )
    inherited = {name: value for name, value in os.environ.items() if name not in ("HF_ENDPOINT", "HF_HUB_OFFLINE")}
    environment = inherited | {"PYTHONPATH": os.pathsep.join(sys.path), "HF_HOME": str(folder / "home")} | variables
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip()


@pytest.mark.usefixtures("isolated")
def test_the_endpoint_of_hugging_face_replaces_its_server(site: Site, tmp_path: Path) -> None:
    site.files[f"/{REPOSITORY}/resolve/main/model.safetensors"] = b"weights"
    path = fetch_in_fresh_process(tmp_path, HF_ENDPOINT=site.url)
    assert path.endswith("/model.safetensors")
    assert site.requests == [(f"/{REPOSITORY}/resolve/main/model.safetensors", "")]
    assert fetch_in_fresh_process(tmp_path, HF_ENDPOINT=site.url, HF_HUB_OFFLINE="1") == path
    assert len(site.requests) == 1


@pytest.mark.usefixtures("isolated")
def test_the_cache_of_hugging_face_is_found_and_nothing_is_downloaded_offline(tmp_path: Path) -> None:
    assert "not tried because HF_HUB_OFFLINE is set" in fetch_in_fresh_process(tmp_path, HF_HUB_OFFLINE="1")
    folder = tmp_path / "home" / "hub" / "models--timm--resnet18.a1_in1k"
    (folder / "snapshots" / "0a1b2c").mkdir(parents=True)
    (folder / "snapshots" / "0a1b2c" / "model.safetensors").write_bytes(b"weights")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0a1b2c")
    assert fetch_in_fresh_process(tmp_path, HF_HUB_OFFLINE="1").endswith("/0a1b2c/model.safetensors")
