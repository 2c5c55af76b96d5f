"""Networks with a nearest-neighbor head: built, saved, loaded, and used as pretrained weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from transfer_model.classifier import WEIGHTS_FILE, Classifier, save
from transfer_model.errors import ModelError
from transfer_model.model_json import ModelConfig
from transfer_model.neighbors import BATCH, NeighborClassifier, NeighborSpec
from transfer_model.network import Network, NetworkSpec, build_network
from transfer_model.ood import OodScorer

SPEC = NeighborSpec(images=30, k=4, smoothing=0.01)


def classifier_of(features: int, classes: int = 3) -> NeighborClassifier:
    made, generator = NeighborClassifier(features, classes, SPEC), torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(30, features, generator=generator))
    made.load_state_dict({"features": directions, "labels": torch.arange(30) % classes, "votes": torch.rand(30) + 0.1})
    return made.eval()


@pytest.fixture(scope="module")
def network(config: ModelConfig) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = build_network(config.network).eval()
        made.set_classifier(classifier_of(made.features))
    return made


def test_the_nearest_images_vote_with_their_weights() -> None:
    head, generator = classifier_of(8), torch.Generator().manual_seed(1)
    for row in 10 * torch.randn(5, 8, generator=generator):
        similarities = torch.cosine_similarity(row, head.features)
        order = sorted(range(30), key=lambda index: -similarities[index])[:4]
        votes = [0.0, 0.0, 0.0]
        for index in order:
            votes[index % 3] += float(head.votes[index] * (similarities[index] / 0.07).exp())
        expected = [0.99 * vote / sum(votes) + 0.01 / 3 for vote in votes]
        assert head(row[None]).exp()[0].tolist() == pytest.approx(expected, rel=1e-4)


def test_an_image_has_the_same_logits_alone_in_a_large_batch_and_within_autocast() -> None:
    head, rows = classifier_of(8), torch.randn(2 * BATCH + 3, 8)
    together = head(rows)
    torch.testing.assert_close(torch.cat([head(row[None]) for row in rows]), together, rtol=0, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(rows), together)
    rounded = rows.bfloat16()
    assert torch.equal(head(rounded), head(rounded.float()))


def test_a_class_without_votes_has_a_finite_logit() -> None:
    assert classifier_of(8, classes=12)(torch.cat([torch.zeros(1, 8), 1e20 * torch.ones(1, 8)])).isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 31}, "neighbors.k must be from 1 to 30 (neighbors.images), but is 31"),
        ({"k": 0}, "neighbors.k must be from 1 to 30"),
        ({"smoothing": 1.0}, "neighbors.smoothing must be above 0 and below 1, but is 1.0"),
    ],
)
def test_wrong_values_in_model_json(
    changes: dict[str, object], message: str, config: ModelConfig, tmp_path: Path
) -> None:
    replace(config, network=replace(config.network, neighbors=SPEC)).write(tmp_path)
    content = json.loads((tmp_path / "model.json").read_text())
    assert content["network"]["neighbors"] == {"images": 30, "k": 4, "smoothing": 0.01}
    content["network"]["neighbors"] |= changes
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(ModelError) as caught:
        ModelConfig.read(tmp_path)
    assert message in str(caught.value)


def test_model_json_of_a_linear_head_has_no_field_more(config: ModelConfig) -> None:
    assert set(config.network.to_json()) == {"backbone", "classes", "dropout", "image_size"}


def test_the_saved_model_predicts_the_same(
    network: Network, config: ModelConfig, images: list[bytes], tmp_path: Path
) -> None:
    own = replace(config, network=network.spec)
    save(tmp_path, own, network, OodScorer(network.classifier.features))
    assert ModelConfig.read(tmp_path) == own
    loaded, made = Classifier.load(tmp_path), Classifier(own, network, OodScorer(network.classifier.features))
    expected = made.predict(images)
    assert abs(loaded.predict_proba(images) - expected.probabilities).max() < 1e-4
    assert abs(loaded.predict(images).ood_scores - expected.ood_scores).max() < 1e-4
    assert len({tuple(row) for row in expected.probabilities.round(3)}) > 5


def test_its_backbone_can_be_trained_further(network: Network, config: ModelConfig, tmp_path: Path) -> None:
    save(tmp_path, replace(config, network=network.spec), network, OodScorer(network.classifier.features))
    further = build_network(NetworkSpec("efficientnet_lite0", 5, 0.0, 32), tmp_path / WEIGHTS_FILE)
    saved = load_file(tmp_path / WEIGHTS_FILE)
    kept = {name: tensor for name, tensor in further.state_dict().items() if ".classifier." not in name}
    assert len(kept) > 100
    assert all(torch.equal(saved[name], tensor) for name, tensor in kept.items())


def test_the_linear_classifier_can_be_put_back(config: ModelConfig) -> None:
    made = build_network(config.network).eval()
    linear, images = made.classifier, torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        before = made(images)
        made.set_classifier(classifier_of(made.features))
        assert made.spec.neighbors == SPEC
        assert not torch.equal(made(images), before)
        made.set_classifier(linear)
        assert torch.equal(made(images), before)
    assert made.spec == config.network
