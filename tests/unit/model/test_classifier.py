from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from transfer_model.classifier import ACCELERATOR_BATCH, Classifier, save
from transfer_model.decode import decode
from transfer_model.errors import ModelError, UnreadableImageError, WeightsError
from transfer_model.model_json import ModelConfig
from transfer_model.network import build_network
from transfer_model.ood import OodScorer

if TYPE_CHECKING:
    from pathlib import Path


def test_rows_are_probabilities_in_the_order_of_the_images(classifier: Classifier, images: list[bytes]) -> None:
    probabilities = classifier.predict_proba(images)
    assert probabilities.shape == (11, 3)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (classifier.predict_proba(images[::-1]) == probabilities[::-1]).all()
    assert len(np.unique(probabilities, axis=0)) == 11


@pytest.mark.parametrize(
    ("precision", "batch"), [("float32", 1), ("float32", ACCELERATOR_BATCH), ("bfloat16", ACCELERATOR_BATCH)]
)
def test_an_image_has_the_same_bits_alone_and_among_others(
    config: ModelConfig, ood_scorer: OodScorer, images: list[bytes], precision: str, batch: int
) -> None:
    classifier = Classifier(replace(config, precision=precision), build_network(config.network), ood_scorer)
    classifier._batch_size = batch  # what the CPU and accelerators use, both tried on the CPU
    together = classifier.predict(images)
    alone = [classifier.predict([image]) for image in images]
    assert (together.probabilities == np.concatenate([one.probabilities for one in alone])).all()
    assert (together.ood_scores == np.concatenate([one.ood_scores for one in alone])).all()
    assert (classifier.predict_proba(images[3:7]) == together.probabilities[3:7]).all()


def test_concurrent_requests_do_not_mix(classifier: Classifier, images: list[bytes]) -> None:
    expected = classifier.predict(images)
    with ThreadPoolExecutor(8) as clients:
        for index, output in enumerate(clients.map(classifier.predict, [[p] for p in images] * 5)):
            position = index % len(images)
            assert (output.probabilities[0] == expected.probabilities[position]).all()
            assert output.ood_scores[0] == expected.ood_scores[position]


def test_the_number_of_torch_threads_is_unchanged(
    config: ModelConfig, ood_scorer: OodScorer, images: list[bytes]
) -> None:
    before = torch.get_num_threads()
    Classifier(config, build_network(config.network), ood_scorer).predict_proba(images)
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == before


def test_the_number_of_threads_per_image_is_a_setting(
    saved: Path, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Classifier.load(saved).predict_proba(images)
    monkeypatch.setenv("PLATFORM_THREADS", "2")
    np.testing.assert_allclose(Classifier.load(saved).predict_proba(images), alone, rtol=0, atol=1e-5)
    for wrong in ("0", "many"):
        monkeypatch.setenv("PLATFORM_THREADS", wrong)
        with pytest.raises(ModelError, match="PLATFORM_THREADS must be a whole number of at least 1"):
            Classifier.load(saved)


def test_precision_is_used(config: ModelConfig, ood_scorer: OodScorer, images: list[bytes]) -> None:
    network, half_precision = build_network(config.network), replace(config, precision="bfloat16")
    full = Classifier(config, network, ood_scorer).predict_proba(images[:2])
    half = Classifier(half_precision, network, ood_scorer).predict_proba(images[:2])
    assert 0 < np.abs(full - half).max() < 0.05


def test_a_temperature_makes_probabilities_less_sure_and_changes_no_label(
    config: ModelConfig, ood_scorer: OodScorer, images: list[bytes]
) -> None:
    network = build_network(config.network)
    cold, warm = (
        Classifier(replace(config, temperature=temperature), network, ood_scorer).predict_proba(images)
        for temperature in (0.01, 0.02)
    )
    assert (cold.argmax(axis=1) == warm.argmax(axis=1)).all()
    assert (cold.max(axis=1) > warm.max(axis=1)).all()
    odds = np.log(warm[:, 0] / warm[:, 1]) * 0.02
    np.testing.assert_allclose(np.log(cold[:, 0] / cold[:, 1]) * 0.01, odds, rtol=1e-3)


def test_an_image_of_the_reference_has_a_low_ood_score(
    classifier: Classifier, config: ModelConfig, images: list[bytes]
) -> None:
    network = build_network(config.network)
    tensors = torch.stack([config.preprocessing(decode(image)) for image in images[:3]])
    features: list[torch.Tensor] = []
    with torch.inference_mode(), network.eval().register_feature_hook(features.append):
        network(tensors)
    output = Classifier(config, network, OodScorer(features[0])).predict(images)
    assert (output.ood_scores[:3] < 1e-3).all()
    assert (output.ood_scores[3:] > 1e-3).all()


def test_no_images_no_rows(classifier: Classifier) -> None:
    assert classifier.predict_proba([]).shape == (0, 3)
    assert classifier.predict([]).ood_scores.shape == (0,)


def test_an_unreadable_image_is_named(classifier: Classifier, images: list[bytes], tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="row 9 is empty"):
        classifier.predict_proba([*images[:9], b"", b"also bad"])
    (tmp_path / "text.jpg").write_text("text")
    with pytest.raises(UnreadableImageError, match=r"text\.jpg is not an image in a supported format"):
        classifier.predict_proba([images[0], tmp_path / "text.jpg"])


def test_saved_and_loaded_it_predicts_the_same(classifier: Classifier, saved: Path, images: list[bytes]) -> None:
    loaded, again = Classifier.load(saved).predict(images), Classifier.load(saved).predict(images)
    assert (loaded.probabilities == again.probabilities).all()
    assert (loaded.ood_scores == again.ood_scores).all()
    own = classifier.predict(images)  # with batch norms that are not fused into convolutions
    np.testing.assert_allclose(loaded.probabilities, own.probabilities, rtol=0, atol=1e-5)
    np.testing.assert_allclose(loaded.ood_scores, own.ood_scores, rtol=0, atol=1e-5)


def test_a_loaded_model_has_the_saved_config(classifier: Classifier, saved: Path) -> None:
    assert Classifier.load(saved).config == classifier.config
    assert Classifier.load(saved).classes == ("ant", "bee", "cat")


def test_weights_of_another_network_are_rejected(damaged: Path) -> None:
    weights = damaged / "weights.safetensors"
    tensors = load_file(weights)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, weights)
    with pytest.raises(WeightsError, match=r"weights\.safetensors contains the weights of another network"):
        Classifier.load(damaged)
    weights.write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match="cannot be read as a safetensors file"):
        Classifier.load(damaged)
    weights.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        Classifier.load(damaged)


def test_a_missing_or_broken_reference_is_rejected(damaged: Path) -> None:
    reference = damaged / "reference.safetensors"
    for content in ({"other": torch.zeros(2, 2)}, {"features": torch.zeros(2)}):
        save_file(content, reference)
        with pytest.raises(WeightsError, match=r"reference\.safetensors does not contain reference features"):
            Classifier.load(damaged)
    reference.unlink()
    with pytest.raises(WeightsError, match=r"reference\.safetensors cannot be read"):
        Classifier.load(damaged)


def test_a_config_survives_its_file(config: ModelConfig, tmp_path: Path) -> None:
    config.write(tmp_path)
    assert ModelConfig.read(tmp_path) == config
    assert json.loads((tmp_path / "model.json").read_text())["format"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "format 1, but this version only reads format 2"),
        ({"classes": ["ant", "bee"]}, "2 class names for a network with 3 classes"),
        ({"classes": ["ant", "bee", "bee"]}, "must be unique"),
        ({"classes": "ant"}, "config.classes must be a list"),
        ({"classes": ["ant", "bee", 3]}, r"classes\[2\] must be of type str, but is int"),
        ({"precision": "float8"}, "one of float32, bfloat16, float16"),
        ({"preprocessing": {"image_size": 3}}, "preprocessing must have exactly the fields image_size"),
        ({"temperature": 0.0}, "temperature must be a number above 0, but is 0.0"),
        ({"unknown": {"threshold": 3.0, "false_alarms": 0.05}}, "threshold must be a number from 0 to 2"),
        ({"unknown": {"threshold": 0.3, "false_alarms": 1}}, "false_alarms must be a fraction above 0 and below 1"),
        ({"extra": 1}, "exactly the fields"),
        ({"network": None}, "config.network must have exactly"),
    ],
)
def test_an_invalid_config_is_rejected(
    config: ModelConfig, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    (tmp_path / "model.json").write_text(json.dumps(config.to_json() | change))
    with pytest.raises(ModelError, match=message) as error:
        ModelConfig.read(tmp_path)
    assert "model.json" in str(error.value)


def test_preprocessing_of_a_wrong_length_or_type_is_rejected(config: ModelConfig, tmp_path: Path) -> None:
    content = json.loads(json.dumps(config.to_json()))
    content["preprocessing"]["mean"] = [0.5, 0.5]
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="mean must have 3 items, but has 2"):
        ModelConfig.read(tmp_path)
    content["preprocessing"]["mean"] = [0, 1, 0.5]
    content["network"]["classes"] = True
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"network\.classes must be of type int, but is bool"):
        ModelConfig.read(tmp_path)


def test_a_missing_or_damaged_config_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.json cannot be read: No such file"):
        ModelConfig.read(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(ModelError, match=r"model\.json is not valid JSON"):
        ModelConfig.read(tmp_path)


def test_tensors_that_share_memory_are_saved_under_each_name(
    config: ModelConfig, ood_scorer: OodScorer, tmp_path: Path
) -> None:
    network = build_network(config.network)
    first, second = network.backbone.blocks[2]
    first.bn2 = second.bn2  # one module under two names, as in CoaT
    second.bn1.weight.data = second.bn1.bias.data  # two parameters in one storage
    save(tmp_path, config, network, ood_scorer)
    assert set(load_file(tmp_path / "weights.safetensors")) == set(network.state_dict())
