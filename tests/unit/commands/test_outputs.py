"""Outputs of commands, and files fetched for one prediction."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from transfer_model import decode, pyfunc
from transfer_platform.commands import classify, predict
from transfer_platform.errors import DataError, SourceError
from transfer_registry.errors import RegistryError
from transfer_registry.model_uri import model_uri
from transfer_registry.serving import smoke_test
from transfer_registry.serving.loaded_model import LoadedModel


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site(isolated: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server, and the folder that it serves."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(isolated)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", isolated
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_photograph_from_the_internet_is_fetched_each_time(site: tuple[str, Path]) -> None:
    address, folder = site
    for shade in (10, 200):
        Image.new("RGB", (8, 8), (shade, shade, shade)).save(folder / "photo.png")
        with classify._file(f"{address}/photo.png") as path, Image.open(path) as image:
            assert image.getpixel((0, 0)) == (shade, shade, shade)
        assert not path.exists()


def test_a_photograph_that_cannot_be_fetched_is_named(site: tuple[str, Path]) -> None:
    for photo in (f"{site[0]}/none.png", "ftp://host/photo.png"):
        with pytest.raises(SourceError, match=photo), classify._file(photo):
            pass


class Sure:
    """A registered model that answers the same for everything."""

    def predict(self, frame, params) -> list[dict[str, object]]:
        return [{"top": [{"label": "ant", "probability": 1.0}]} for _ in range(len(frame))]


class Unsure:
    """A registered model of two classes that answers the same for everything."""

    def predict(self, frame, params) -> list[dict[str, object]]:
        top = [{"label": "bee", "probability": 0.75}, {"label": "ant", "probability": 0.25}]
        return [{"top": top} for _ in range(len(frame))]


def test_a_model_is_evaluated_on_a_folder_of_one_of_its_classes(isolated: Path, monkeypatch) -> None:
    monkeypatch.setattr(predict, "load_model", lambda name: LoadedModel(name, ("ant", "bee"), Unsure()))
    (isolated / "bee").mkdir()
    Image.new("RGB", (8, 8)).save(isolated / "bee" / "a.png")
    report = predict.evaluate_folder("ants", isolated)
    assert "1 of 1 images are classified correctly." in report
    assert "| bee | 1 | 1.0000 | 1.0000 | 1.0000 |" in report


def test_a_folder_without_class_folders_is_not_evaluated(isolated: Path) -> None:
    with pytest.raises(DataError, match="must contain at least one class folder, but has none"):
        predict.evaluate_folder("ants", isolated)


def test_the_largest_images_fit_into_one_request() -> None:
    assert predict.BATCH * decode.MAX_PIXELS <= pyfunc.MAX_PIXELS
    assert smoke_test.CONCURRENT_IMAGES * decode.MAX_PIXELS <= pyfunc.MAX_PIXELS


def test_an_earlier_answer_is_no_image(isolated: Path, monkeypatch) -> None:
    monkeypatch.setattr(predict, "load_model", lambda name: LoadedModel(name, ("ant",), Sure()))
    Image.new("RGB", (8, 8)).save(isolated / "a.png")
    out = Path("predictions.csv")
    first = predict.predict_folder(Path(), "ants", out)
    assert first.startswith("1 image classified")
    assert predict.predict_folder(Path(), "ants", out) == first
    assert out.read_text().splitlines()[1:] == ["a.png,ant,1.000000,,"]


@pytest.mark.parametrize("model", ["runs:/0123/model", "models:/m-0123"])
def test_a_model_of_a_run_is_not_looked_for_where_there_are_no_runs(isolated: Path, model: str) -> None:
    with pytest.raises(RegistryError, match="no registered models"):
        model_uri(model)
    assert not list(isolated.iterdir())
