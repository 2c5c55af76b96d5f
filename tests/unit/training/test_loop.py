"""Training loop of a small network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from transfer_model.network import Network, NetworkSpec, build_network
from transfer_platform.errors import DivergedError
from transfer_platform.recipe.schema import Recipe
from transfer_platform.training.batches import TrialData
from transfer_platform.training.class_weights import balanced_weights, resolve_class_weights
from transfer_platform.training.loop import EpochResult, FitOptions, FitResult, Objective, cross_validate, fit, refit
from transfer_platform.training.network_cache import freeze_through
from transfer_platform.training.optim import LearningRateSchedule, make_optimizer

CLASSES = 3
WIDTH = next(build_network(NetworkSpec("timm/test_resnet", CLASSES, 0.2, 32)).head_parameters()).shape[1]
LOSS = Objective("validation/loss", minimizes=True)


def recipe(tmp_path, **training: object) -> Recipe:
    (tmp_path / "photos").mkdir(exist_ok=True)
    return Recipe.model_validate(
        {
            "name": "small",
            "dataset": {"source": str(tmp_path / "photos")},
            "backbone": {"name": "timm/test_resnet", "weights": "none"},
            "training": {"epochs": 4, "batch_size": 8, "learning_rate": 0.05, **training},
        }
    )


def network() -> Network:
    torch.manual_seed(0)
    made = build_network(NetworkSpec("timm/test_resnet", CLASSES, 0.2, 32))
    freeze_through(made, "all")
    return made


class RandomFeatures:
    """Features of three classes that are almost linearly separable."""

    evaluation_batch = 16
    elements = WIDTH
    network: Network  # its head is trained

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(1)
        centres = torch.randn(CLASSES, WIDTH, generator=generator)
        self.labels = torch.arange(count) % CLASSES
        self.values = centres[self.labels] + 2 * torch.randn(count, WIDTH, generator=generator)

    def load(self, positions: Sequence[int]) -> Tensor:
        return self.values[list(positions)]

    def load_training(self, positions: Sequence[int], epoch: int, repeats: Sequence[int]) -> Tensor:
        return self.load(positions)

    def logits(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.network.forward_head(inputs), ()


TRAIN, ALL = 41, 71


@pytest.fixture
def features() -> RandomFeatures:
    return RandomFeatures(ALL)


def trial_data(features: RandomFeatures, settings: Recipe, train: Iterable[int] = range(TRAIN)) -> TrialData:
    return TrialData(
        features,
        features.labels,
        tuple(train),
        tuple(range(TRAIN, ALL)),
        settings.training.batch_size,
        0,
        balanced=settings.training.sampling == "balanced",
    )


def options(settings: Recipe) -> FitOptions:
    return FitOptions(settings.training, "float32", LOSS, lambda _: None)


def fitted_result(made: Network, features: RandomFeatures, settings: Recipe) -> FitResult:
    features.network = made
    return fit(made, trial_data(features, settings), options(settings))


def folds(features: RandomFeatures, settings: Recipe, count: int = 3) -> list[TrialData]:
    data = trial_data(features, settings)
    return [
        replace(
            data,
            train=tuple(place for place in range(ALL) if place % count != fold),
            validation=tuple(range(fold, ALL, count)),
        )
        for fold in range(count)
    ]


def cross_validated(made: Network, features: RandomFeatures, settings: Recipe) -> FitResult:
    features.network = made
    return cross_validate(made, folds(features, settings), options(settings))


def state(made: Network) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in made.state_dict().items()}


def test_the_weights_of_the_best_epoch_are_restored(tmp_path, features) -> None:
    made, settings = network(), recipe(tmp_path, learning_rate=0.5, schedule="constant", epochs=6)
    result = fitted_result(made, features, settings)
    assert result.best.metrics["validation/loss"] == min(epoch.metrics["validation/loss"] for epoch in result.epochs)
    made.eval()
    logits = made.forward_head(features.values[TRAIN:])
    assert torch.allclose(logits, result.logits, atol=1e-6)
    loss = torch.nn.functional.cross_entropy(logits.double(), features.labels[TRAIN:])
    assert loss.item() == pytest.approx(result.best.metrics["validation/loss"], rel=1e-6)


def test_training_is_deterministic(tmp_path, features) -> None:
    states = []
    for _ in range(2):
        made = network()
        torch.manual_seed(5)
        fitted_result(made, features, recipe(tmp_path))
        states.append(state(made))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_training_reduces_the_loss(tmp_path, features) -> None:
    result = fitted_result(network(), features, recipe(tmp_path, epochs=8))
    assert result.best.metrics["validation/accuracy"] > 0.8
    assert result.epochs[-1].metrics["train/loss"] < result.epochs[0].metrics["train/loss"]


def test_a_nan_loss_reports_its_step(tmp_path, features) -> None:
    features.values[:] = float("nan")
    with pytest.raises(DivergedError, match="became nan at step 1;"):
        fitted_result(network(), features, recipe(tmp_path))


def test_divergence_in_a_later_epoch_counts_steps_over_the_whole_trial(tmp_path, features) -> None:
    settings = recipe(tmp_path, learning_rate=1e38, optimizer="sgd", momentum=0.0, schedule="constant")
    with pytest.raises(DivergedError) as caught:
        fitted_result(network(), features, settings)
    assert caught.value.step > 1


def test_non_finite_weights_after_the_last_step_are_divergence(tmp_path, features) -> None:
    settings = recipe(tmp_path, batch_size=64, epochs=1, learning_rate=1e38, optimizer="sgd")
    features.values[:TRAIN] *= 1e30
    with pytest.raises(DivergedError) as caught:
        fitted_result(network(), features, settings)
    assert caught.value.step == 1


def test_early_stopping_waits_for_the_configured_epochs(tmp_path, features) -> None:
    settings = recipe(tmp_path, epochs=50, learning_rate=1.0, schedule="constant", early_stopping=2)
    result = fitted_result(network(), features, settings)
    assert result.epochs[-1].number == result.best.number + 2


def test_every_epoch_is_reported(tmp_path, features) -> None:
    reported: list[EpochResult] = []
    settings, made = recipe(tmp_path), network()
    features.network = made
    result = fit(
        made,
        trial_data(features, settings),
        FitOptions(settings.training, "float32", Objective("validation/accuracy", minimizes=False), reported.append),
    )
    assert tuple(reported) == result.epochs
    assert [epoch.number for epoch in reported] == [1, 2, 3, 4]
    assert {"train/loss", "validation/loss", "validation/macro_f1", "learning_rate"} <= reported[0].metrics.keys()


REMEDIES = {"none": {}, "weights": {"class_weights": "balanced"}, "sampling": {"sampling": "balanced"}}


def test_class_weights_and_sampling_raise_the_recall_of_a_rare_class(tmp_path, features) -> None:
    labels = features.labels[:TRAIN]
    few = [place for place in range(TRAIN) if labels[place] != 2 or place < 3]
    recalls = {}
    for name, changes in REMEDIES.items():
        made, settings = network(), recipe(tmp_path, **changes, epochs=3)
        features.network = made
        fit(made, trial_data(features, settings, few), options(settings))
        made.eval()
        predicted = made.forward_head(features.values[TRAIN:]).argmax(dim=1)
        recalls[name] = (predicted[features.labels[TRAIN:] == 2] == 2).float().mean().item()
    assert recalls["weights"] > recalls["none"]
    assert recalls["sampling"] > recalls["none"]


@pytest.mark.parametrize("changes", [{}, {"class_weights": "balanced", "label_smoothing": 0.1}])
def test_an_image_of_weight_2_counts_like_two_images(changes, tmp_path, features) -> None:
    settings = recipe(tmp_path, **changes, batch_size=2 * TRAIN, epochs=3, optimizer="sgd")
    whole = replace(trial_data(features, settings), validation=())
    twice = {3: 2.0, 5: 2.0, 10: 2.0}  # one of each class, so that their imbalance stays
    variants = {
        "unweighted": whole,
        "repeated": replace(whole, train=(*whole.train, *twice)),
        "weighted": replace(whole, weights=torch.tensor([twice.get(place, 1.0) for place in range(ALL)])),
        "equal weights": replace(whole, weights=torch.full((ALL,), 3.0)),
    }
    heads = {}
    for variant, data in variants.items():
        made = features.network = network()
        made.set_dropout(0.0)
        refit(made, data, settings.training, precision="float32", epochs=3)
        heads[variant] = torch.cat([weight.detach().flatten() for weight in made.head_parameters()])
    equal = {name: torch.allclose(head, heads["repeated"], atol=1e-5) for name, head in heads.items()}
    if not changes:
        assert equal == {"unweighted": False, "repeated": True, "weighted": True, "equal weights": False}
    assert torch.allclose(heads["equal weights"], heads["unweighted"], atol=1e-5)
    assert not torch.allclose(heads["weighted"], heads["unweighted"], atol=1e-5)


@pytest.mark.parametrize(
    ("counts", "expected"), [((20, 20, 20), "none"), ((30, 25, 20), "none"), ((31, 25, 20), "balanced")]
)
def test_auto_class_weights_depend_on_the_imbalance_and_are_reported(counts, expected, tmp_path) -> None:
    labels = torch.repeat_interleave(torch.arange(CLASSES), torch.tensor(counts))
    messages: list[str] = []
    automatic = recipe(tmp_path, class_weights="auto").training
    assert resolve_class_weights(automatic, labels, CLASSES, messages.append).class_weights == expected
    assert messages == [
        f"class_weights: auto is {expected}: "
        f"the largest and smallest classes differ by a factor of {max(counts) / 20:.2f}"
    ]
    plain = recipe(tmp_path).training
    assert resolve_class_weights(plain, labels, CLASSES, messages.append) is plain
    assert len(messages) == 1


def test_balanced_weights_equal_those_of_scikit_learn() -> None:
    weights = balanced_weights(torch.tensor([0, 0, 0, 1, 2, 2]), 3)
    assert weights.tolist() == pytest.approx([6 / 9, 2.0, 1.0])


def test_each_fold_is_validated_by_the_network_trained_on_the_others(tmp_path, features) -> None:
    settings = recipe(tmp_path, learning_rate=0.5, epochs=3)
    made = network()
    made.set_dropout(0.0)  # what dropout draws depends on which fold is trained first
    start = state(made)
    result = cross_validated(made, features, settings)
    for fold in folds(features, settings):
        made.load_state_dict(start)
        refit(made, fold, settings.training, precision="float32", epochs=result.best.number)
        alone = made.eval().forward_head(features.values[list(fold.validation)])
        assert torch.allclose(alone, result.logits[list(fold.validation)], atol=1e-6)


def test_cross_validation_ranks_epochs_by_the_out_of_fold_loss(tmp_path, features) -> None:
    result = cross_validated(network(), features, recipe(tmp_path, learning_rate=0.5, epochs=6))
    loss = torch.nn.functional.cross_entropy(result.logits.double(), features.labels)
    assert result.best.metrics["validation/loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert result.best.metrics["validation/loss"] == min(epoch.metrics["validation/loss"] for epoch in result.epochs)
    assert not result.weights


def test_a_refit_follows_the_schedule_of_the_whole_recipe(tmp_path, features) -> None:
    settings = recipe(tmp_path, epochs=6)
    whole = replace(trial_data(features, settings), train=tuple(range(ALL)))
    states = []
    for epochs in (2, 2, 6):
        made = features.network = network()
        torch.manual_seed(3)
        refit(made, whole, settings.training, precision="float32", epochs=epochs)
        states.append(state(made))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


def rates(settings: Recipe, steps_per_epoch: int, losses=None) -> list[float]:
    optimizer = make_optimizer(network(), settings.training)
    schedule = LearningRateSchedule(optimizer, settings.training, steps_per_epoch)
    values = []
    for epoch in range(settings.training.epochs):
        for _ in range(steps_per_epoch):
            values.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.after_step()
        schedule.after_epoch(losses[epoch] if losses else 1.0)
    return values


def test_cosine_rises_to_the_peak_and_falls_towards_zero(tmp_path) -> None:
    values = rates(recipe(tmp_path, schedule="cosine", learning_rate=1.0, warmup_epochs=1), 4)
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert values[4:] == sorted(values[4:], reverse=True)
    assert values[-1] < 0.05


def test_a_constant_schedule_does_not_change(tmp_path) -> None:
    assert set(rates(recipe(tmp_path, schedule="constant", learning_rate=0.5), 3)) == {0.5}


def test_one_cycle_peaks_once_at_the_given_rate(tmp_path) -> None:
    values = rates(recipe(tmp_path, schedule="one_cycle", learning_rate=1.0), 5)
    assert max(values) == pytest.approx(1.0, rel=0.02)
    peak = values.index(max(values))
    assert values[:peak] == sorted(values[:peak])
    assert values[peak:] == sorted(values[peak:], reverse=True)


@pytest.mark.parametrize("steps_per_epoch", [1, 2, 10])
@pytest.mark.parametrize("warmup_epochs", [0, 0.2, 1, 2, 4])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle", "plateau"])
def test_every_schedule_supports_every_warm_up(tmp_path, schedule, warmup_epochs, steps_per_epoch) -> None:
    settings = recipe(tmp_path, schedule=schedule, warmup_epochs=warmup_epochs, learning_rate=1.0)
    values = rates(settings, steps_per_epoch)
    assert all(0 < rate <= 1 + 1e-9 for rate in values[:-1])


def test_plateau_falls_only_when_the_loss_stops_falling(tmp_path) -> None:
    settings = recipe(tmp_path, schedule="plateau", learning_rate=1.0, epochs=8)
    assert set(rates(settings, 2, losses=[8, 7, 6, 5, 4, 3, 2, 1])) == {1.0}
    assert sorted(set(rates(settings, 2, losses=[1.0] * 8))) == pytest.approx([0.09, 0.3, 1.0])
    faster = recipe(tmp_path, schedule="plateau", learning_rate=1.0, epochs=4, plateau={"factor": 0.1, "patience": 0})
    assert rates(faster, 1, losses=[1.0] * 4) == pytest.approx([1.0, 1.0, 0.1, 0.01])


@pytest.mark.parametrize(("name", "kind"), [("adamw", "AdamW"), ("adam", "Adam"), ("sgd", "SGD")])
def test_an_optimizer_has_its_class_and_learns(tmp_path, name: str, kind: str) -> None:
    made = network()
    freeze_through(made, "none")
    optimizer = make_optimizer(made, recipe(tmp_path, optimizer=name, learning_rate=1e-3).training)
    assert type(optimizer).__name__ == kind
    images, labels = torch.rand(8, 3, 32, 32), torch.arange(8) % CLASSES
    losses = []
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(made.eval()(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_biases_and_norms_are_not_decayed_and_the_backbone_has_a_lower_rate(tmp_path) -> None:
    made = network()
    freeze_through(made, "none")
    settings = recipe(tmp_path, learning_rate=1.0, backbone_lr_factor=0.1, weight_decay=0.5)
    groups = make_optimizer(made, settings.training).param_groups
    for group in groups:
        assert group["weight_decay"] == (0.5 if all(p.ndim > 1 for p in group["params"]) else 0.0)
        assert len({p.ndim > 1 for p in group["params"]}) == 1
    assert sorted({group["lr"] for group in groups}) == pytest.approx([0.1, 1.0])
    assert sum(len(group["params"]) for group in groups) == len(list(made.parameters()))
