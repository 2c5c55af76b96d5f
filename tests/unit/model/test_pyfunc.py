from __future__ import annotations

import base64
import json
import logging
from io import BytesIO
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from mlflow.pyfunc.model import PythonModelContext
from PIL import Image

from transfer_model.pyfunc import MAX_IMAGES, ImageClassifier, RequestError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def context(saved: Path) -> PythonModelContext:
    return PythonModelContext(artifacts={"model": str(saved)}, model_config=None)


@pytest.fixture(scope="module")
def model(context: PythonModelContext) -> ImageClassifier:
    loaded = ImageClassifier()
    loaded.load_context(context)
    return loaded


def table(*values: object) -> pd.DataFrame:
    return pd.DataFrame({"image": pd.Series(values, dtype=object)})


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def bomb() -> bytes:
    content = BytesIO()
    Image.new("1", (10_000, 10_000)).save(content, "PNG")
    return content.getvalue()


def large() -> bytes:
    content = BytesIO()
    Image.new("1", (7972, 8000)).save(content, "PNG")
    return content.getvalue()


def test_bytes_base64_and_data_uris_are_the_same_image(
    model: ImageClassifier, context: PythonModelContext, images: list[bytes]
) -> None:
    wrapped = "\n".join(text(images[0])[start : start + 76] for start in range(0, 10**6, 76)).strip()
    values = (images[0], text(images[0]), f"data:image/png;base64,{text(images[0])}", wrapped)
    rows = model.predict(context, table(*values))
    assert rows == [rows[0]] * 4


def test_label_and_top_agree_with_the_classifier(
    model: ImageClassifier, context: PythonModelContext, images: list[bytes]
) -> None:
    classifier = model.classifier
    output = classifier.predict(images)
    for row, probabilities in zip(model.predict(context, table(*images)), output.probabilities, strict=True):
        assert row["label"] == classifier.classes[probabilities.argmax()]
        assert row["probability"] == float(probabilities.max())
        assert [entry["probability"] for entry in row["top"]] == sorted(map(float, probabilities), reverse=True)
        assert {entry["label"] for entry in row["top"]} == set(classifier.classes)


def test_top_k_is_capped_by_the_number_of_classes(
    model: ImageClassifier, context: PythonModelContext, images: list[bytes]
) -> None:
    for top_k, length in ((1, 1), (2, 2), (3, 3), (1000, 3)):
        assert len(model.predict(context, table(images[0]), {"top_k": top_k})[0]["top"]) == length


def test_images_above_the_threshold_are_unknown(
    model: ImageClassifier, context: PythonModelContext, images: list[bytes]
) -> None:
    ood_scores = model.classifier.predict(images).ood_scores
    for params, threshold in (({}, 0.25), ({"threshold": float(ood_scores[0])}, ood_scores[0])):
        rows = model.predict(context, table(*images), params)
        assert [row["ood_score"] for row in rows] == ood_scores.tolist()
        assert [row["unknown"] for row in rows] == (ood_scores > threshold).tolist()
    assert {row["unknown"] for row in rows} == {True, False}


GOOD = b"good"


@pytest.mark.parametrize(
    ("values", "params", "message"),
    [
        ((), {}, "the request contains no images; expected at least one"),
        ((None,), {}, "row 0: the image is missing"),
        ((GOOD, "None"), {}, "row 1: the image is missing"),
        ((GOOD, GOOD, float("nan")), {}, "row 2: the image is missing"),
        (("null",), {}, "row 0: the image is missing"),
        (("",), {}, "row 0: the image is missing"),
        ((7,), {}, "row 0: the image is missing"),
        (("not base64!",), {}, "row 0: the image is not base64 text"),
        (("aGVsbG8",), {}, "row 0: the image is not base64 text"),
        (("\udc80",), {}, "row 0: the image is not base64 text"),
        (("data:image/png;base64,",), {}, "row 0 is empty (0 bytes)"),
        ((b"",), {}, "row 0 is empty (0 bytes)"),
        ((text(b"hello"),), {}, "row 0 is not an image in a supported format"),
        ((GOOD, text(bomb())), {}, "row 1 has 10000 x 10000 pixels"),
        ((GOOD,), {"top_k": -3}, "top_k must be a whole number of at least 1"),
        ((GOOD,), {"top_k": 0}, "top_k must be"),
        ((GOOD,), {"top_k": None}, "top_k must be"),
        ((GOOD,), {"top_k": -(10**2000)}, "top_k must be"),
        ((GOOD,), {"threshold": -0.1}, "threshold must be a number from 0 to 2, but is -0.1"),
        ((GOOD,), {"threshold": float("nan")}, "threshold must be a number from 0 to 2, but is nan"),
        ((GOOD,), {"threshold": None}, "threshold must be a number from 0 to 2, but is None"),
        ((GOOD,) * (MAX_IMAGES + 1), {}, "257 images, more than the 256 allowed"),
        ((large(),) * 16, {}, "1,020,416,000 pixels in total, more than the 1,000,000,000 allowed"),
    ],
)
def test_an_invalid_request_is_a_400_in_one_sentence(
    model: ImageClassifier,
    context: PythonModelContext,
    images: list[bytes],
    values: tuple[object, ...],
    params: dict[str, int | None],
    message: str,
) -> None:
    contents = [images[0] if value is GOOD else value for value in values]
    with pytest.raises(RequestError) as error:
        model.predict(context, table(*contents), params)
    assert error.value.get_http_status_code() == 400
    error.value.message = f"Failed to predict data '{contents}'"  # as MLflow's server does
    response = json.loads(error.value.serialize_as_json())
    assert response["error_code"] == "INVALID_PARAMETER_VALUE"
    assert message in response["message"]
    assert len(response["message"]) < 150


def test_a_table_without_the_column_is_a_400(model: ImageClassifier, context: PythonModelContext) -> None:
    with pytest.raises(RequestError, match="an 'image' column"):
        model.predict(context, pd.DataFrame({"photo": ["x"]}))


def test_a_bug_is_logged_and_returned_as_a_500_without_details(
    context: PythonModelContext, images: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    unloaded = ImageClassifier()
    with caplog.at_level(logging.ERROR), pytest.raises(RequestError) as failed:
        unloaded.predict(context, table(images[0]))
    assert failed.value.get_http_status_code() == 500
    assert json.loads(failed.value.serialize_as_json()) == {
        "error_code": "INTERNAL_ERROR",
        "message": "the model failed; see the server log",
    }
    assert "AttributeError" in caplog.text
