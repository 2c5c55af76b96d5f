"""Real servers over HTTP: MLflow's scoring server, alone and behind the middleware."""

from __future__ import annotations

import base64
import json
import re
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from transfer_model.classifier import Classifier
from transfer_registry import mlflow_server
from transfer_registry.errors import RegistryError, StorageError
from transfer_registry.serving.server import serve

if TYPE_CHECKING:
    from conftest import Registered, Server

LEAKS = (b"Traceback", b"stack_trace", b'File \\"', b"SECRET")


@pytest.fixture(scope="module")
def photo(photographs: Path) -> Path:
    return sorted((photographs / "val" / "bees").glob("*.jpg"))[0]


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def bomb() -> bytes:
    content = BytesIO()
    Image.new("1", (10_000, 10_000)).save(content, "PNG")
    return content.getvalue()


def rows(*images: object) -> dict[str, object]:
    return {"inputs": [{"image": image} for image in images]}


@pytest.mark.parametrize("kind", ["plain", "guarded"])
def test_all_formats_give_the_same_response(
    kind: str, photo: Path, registered: Registered, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(kind)
    image = text(photo.read_bytes())
    forms = [
        rows(image),
        {"inputs": [image]},
        {"inputs": {"image": [image]}},
        {"instances": [{"image": image}]},
        {"dataframe_split": {"columns": ["image"], "data": [[image]]}},
        {"dataframe_records": [{"image": image}]},
    ]
    answers = [server.post_json(form) for form in forms]
    answers.append(server.post(f"image\n{image}\n".encode(), "text/csv"))
    assert {status for status, _ in answers} == {200}
    assert len({body for _, body in answers}) == 1
    (found,) = json.loads(answers[0][1])["predictions"]
    own = Classifier.load(registered.model).predict_proba([photo])[0]
    assert found["label"] == ("ants", "bees")[own.argmax()]
    assert found["probability"] == pytest.approx(float(own.max()), abs=1e-6)
    assert len(found["top"]) == 2


@pytest.mark.parametrize("kind", ["plain", "guarded"])
def test_top_k(kind: str, photo: Path, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(kind)
    status, body = server.post_json({**rows(text(photo.read_bytes())), "params": {"top_k": 1}})
    assert status == 200
    assert len(json.loads(body)["predictions"][0]["top"]) == 1


def bad_images(photo: Path) -> dict[str, tuple[object, str]]:
    """Requests that reach the model, and a part of the response."""
    whole = photo.read_bytes()
    return {
        "a text": (rows(text(b"SECRET")), "row 0 is not an image"),
        "not base64": (rows("SECRET!"), "row 0: the image is not base64 text"),
        "second of two": (rows(text(whole), "SECRET!"), "row 1: the image is not base64 text"),
        "truncated": (rows(text(whole[: len(whole) // 2])), "truncated or corrupt JPEG"),
        "0 bytes": (rows("data:image/jpeg;base64,"), "row 0 is empty"),
        "empty": (rows(""), "row 0: the image is missing"),
        "null in a table": (
            {"dataframe_split": {"columns": ["image"], "data": [[None]]}},
            "row 0: the image is missing",
        ),
        "null": (rows(None), "row 0: the image is missing"),
        "bomb": (rows(text(bomb())), "10000 x 10000 pixels"),
        "top_k -3": ({**rows(text(whole)), "params": {"top_k": -3}}, "top_k must be"),
        "top_k 0": ({**rows(text(whole)), "params": {"top_k": 0}}, "top_k must be"),
        "too many": (rows(*["SECRET"] * 257), "257 images, more than the 256 allowed"),
        "empty table": ({"dataframe_split": {"columns": ["image"], "data": []}}, "the request contains no images"),
        "empty batch": ({"inputs": []}, "the request contains no images"),
    }


@pytest.mark.parametrize("kind", ["plain", "guarded"])
def test_bad_images_are_a_400_in_one_sentence(kind: str, photo: Path, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(kind)
    for case, (content, message) in bad_images(photo).items():
        status, body = server.post_json(content)
        assert status == 400, (case, status, body[:300])
        assert message in json.loads(body)["message"], (case, body[:300])
        assert_short(case, body)
    assert server.post_json(rows(text(photo.read_bytes())))[0] == 200


BAD_REQUESTS: dict[str, tuple[bytes, str | None, int]] = {
    "text": (b"SECRET", "application/json", 400),
    "nothing": (b"", "application/json", 400),
    "broken JSON": (b'{"inputs": ["SECRET', "application/json", 400),
    "deeply nested": (b"[" * 200_000, "application/json", 400),
    "nested in a row": (b'{"inputs":' + b"[" * 500 + b"]" * 500 + b"}", "application/json", 400),
    "a list": (b'["SECRET"]', "application/json", 400),
    "another column": (b'{"inputs": [{"SECRET": "a"}]}', "application/json", 400),
    "two forms": (b'{"inputs": ["SECRET"], "instances": ["SECRET"]}', "application/json", 400),
    "top_k text": (b'{"inputs": ["aa"], "params": {"top_k": "SECRET"}}', "application/json", 400),
    "not UTF-8": (b'{"inputs": ["\xff\xfe"]}', "application/json", 400),
    "empty CSV": (b"", "text/csv", 400),
    "other CSV": (b"photo\nSECRET\n", "text/csv", 400),
    "header only": (b"image\n", "text/csv", 400),
    "an image": (b"\xff\xd8\xff\xe0SECRET", "image/jpeg", 415),
    "no content type": (b'{"inputs": ["SECRET"]}', None, 415),
    "parquet": (b"PAR1SECRET", "application/vnd.apache.parquet", 415),
    "too large": (b" " * (33 * 1024 * 1024), "application/json", 413),
}


def test_bad_requests_are_a_short_4xx(guarded: Server, photo: Path) -> None:
    for case, (sent, content_type, expected) in BAD_REQUESTS.items():
        status, body = guarded.post(sent, content_type)
        assert status == expected, (case, status, body[:300])
        assert set(json.loads(body)) == {"error_code", "message"}, case
        assert_short(case, body)
    assert guarded.post_json(rows(text(photo.read_bytes())))[0] == 200


def assert_short(case: str, body: bytes) -> None:
    assert len(body) < 1000, (case, len(body))
    assert not [leak for leak in LEAKS if leak in body], (case, body[:300])


def test_other_paths(guarded: Server) -> None:
    assert guarded.request("GET", "/ping")[0] == 200
    assert guarded.request("GET", "/health")[0] == 200
    assert guarded.request("GET", "/version")[0] == 200
    assert guarded.request("GET", "/docs")[0] == 404
    assert guarded.request("GET", "/invocations")[0] == 405
    assert guarded.request("POST", "/invocations/")[0] == 404


def test_the_banner_of_serve(guarded: Server) -> None:
    assert f"http://127.0.0.1:{guarded.port}/invocations" in guarded.output
    assert "models:/ants-bees@champion" in guarded.output
    assert "curl" in guarded.output


def test_the_ui_shows_the_runs(pages: Server, registered: Registered) -> None:
    link = f"http://127.0.0.1:{pages.port}/#/experiments/{registered.experiment_id}/runs"
    assert f"{link}?workflowType=machine_learning" in pages.output
    assert pages.request("GET", "/")[0] == 200
    search = json.dumps({"experiment_ids": [registered.experiment_id]}).encode()
    headers = {"Content-Type": "application/json"}
    status, body = pages.request("POST", "/api/2.0/mlflow/runs/search", search, headers)
    assert status == 200
    assert [run["info"]["run_id"] for run in json.loads(body)["runs"]] == [registered.run_id]


def test_a_server_has_one_identity_under_all_its_addresses(pages: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    identities = set()
    for host in ("127.0.0.1", "localhost"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{host}:{pages.port}")
        identities.add(mlflow_server.registry_id())
    (identity,) = identities
    assert re.fullmatch(r"created \d{13}", str(identity))


def test_the_ui_imports_nothing_from_the_current_folder(pages_of_scripts: Server) -> None:
    assert pages_of_scripts.request("GET", "/health") == (200, b"OK")


def test_a_port_in_use(guarded: Server, here: Registered) -> None:
    message = f"127.0.0.1, port {guarded.port}: .*choose another port with --port"
    with pytest.raises(StorageError, match=message):
        serve("ants-bees", port=guarded.port)


def test_serving_a_missing_model(here: Registered) -> None:
    with pytest.raises(RegistryError, match="registered models: ants-bees"):
        serve("ants-beans", port=0)
