"""Trains the networks of a study's trials."""

from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from transfer_model import catalog
from transfer_model.architecture import Architecture
from transfer_model.neighbors import NeighborClassifier
from transfer_model.network import Network, NetworkSpec
from transfer_model.preprocessing import Preprocessing
from transfer_platform.data.intensity import as_intensity
from transfer_platform.data.splits import Splits
from transfer_platform.errors import TrainingError
from transfer_platform.loading.sampler import batch_indices
from transfer_platform.progress import Progress, Say, once, silent
from transfer_platform.recipe.label_map import head_rows
from transfer_platform.recipe.schema import Recipe, TrainingConfig
from transfer_platform.solvers.neighbors import neighbor_classifier
from transfer_platform.tensor_store.store import Store
from transfer_platform.training.batches import InputSource, TrialData
from transfer_platform.training.class_weights import image_weights, resolve_class_weights
from transfer_platform.training.datamodule import DataModule
from transfer_platform.training.device import threads_for
from transfer_platform.training.failures import SMALLER_IMAGES, trial_failures
from transfer_platform.training.loop import EpochResult, FitOptions, FitResult, cross_validate, fit, objective, refit
from transfer_platform.training.neighbor_size import require_storable
from transfer_platform.training.network_cache import CachedNetwork, prepare_network
from transfer_platform.training.phases import Weights, numbers_within_phases, phase_recipes, run_phases
from transfer_platform.training.precision import autocast, select_precision
from transfer_platform.training.solved_head import TEMPERATURE, Solution, SolvedHead


class TrialTrainer:
    """Trains the networks of all trials in a study; trials share cached networks, features and images.

    Args:
        splits: Images of the study.
        pretrained: Maps each backbone to a file with pretrained weights, or to None for random weights.
        device: Device on which the networks run.
        trials: Number of trials in the study; used to decide whether storing features saves time.
        epochs: Maximum number of epochs per trial; like `trials`, used to decide whether storing features saves time.
        store: Store for features and decoded images; None disables storing.
        cached_networks: Maximum number of networks held in memory; the least recently used one is removed first.
        progress: Called repeatedly while features are being computed.

    Attributes:
        precision: Precision of the networks, initially float32; see `select_precision`.
    """

    def __init__(
        self,
        splits: Splits,
        pretrained: Mapping[Architecture, Path | None],
        device: torch.device,
        *,
        trials: int = 1,
        epochs: int = 1,
        store: Store | None = None,
        cached_networks: int = 4,
        progress: Progress = silent,
        say: Say = silent,
    ) -> None:
        self.splits, self._pretrained, self.device = splits, pretrained, device
        self.precision = "float32"
        self._data_module = DataModule(splits, device, trials, epochs, store, progress, say)
        self._labels = torch.tensor(splits.labels(splits.development))
        self._weights = image_weights(splits)
        self._say_once = once(say)
        self._networks: OrderedDict[tuple[Architecture, str, int], CachedNetwork] = OrderedDict()
        self._cached_networks = cached_networks

    def train(self, recipe: Recipe, after_epoch: Callable[[EpochResult], None]) -> FitResult:
        """Trains a network, starting from its pretrained weights; with cross-validation, trains one network per fold.

        The recipe must not contain search ranges. An exception raised by `after_epoch` ends training.

        Raises:
            DivergedError: The loss is not finite.
            TrainingError: The network cannot be trained with the values in the recipe.
        """
        phases = phase_recipes(recipe)
        if len(phases) == 1:
            return self._train_phase(recipe, (), after_epoch)
        return run_phases(phases, partial(self._train_phase, calibrated=True), objective(recipe), after_epoch)

    def finalize(self, recipe: Recipe, result: FitResult) -> Network:
        """Returns the final network of a trial in eval mode.

        The network has the weights of the best epoch; with cross-validation, it is retrained on all training images for
        the best number of epochs of each phase. `result` may come from an earlier process.
        """
        if result.weights:
            return self._network_with(recipe, result.weights).eval()
        data = self._trial_data(recipe, self._inputs(recipe, self._cached_network(recipe)))
        return self._refit(recipe, data, result)

    def untrained_network(self, recipe: Recipe) -> Network:
        """Returns a trial's network before training."""
        return self._cached_network(recipe).reset(recipe.seed, recipe.head.dropout)

    def example_network(self, recipe: Recipe) -> Network:
        """Returns a trial's network before training, with random features in place of those that `knn` stores."""
        network, count = self.untrained_network(recipe), len(self.splits.train)
        if recipe.head.kind == "knn":
            labels, classes = self._labels[:count], len(self.splits.classes)
            rows = torch.randn(count, network.features)
            network.set_classifier(neighbor_classifier(rows, labels, torch.ones(count), 1, classes))
        return network

    def first_batch(self, recipe: Recipe) -> tuple[Tensor, list[str]]:
        """Returns a trial's first training batch, with augmentation and without normalization, on the CPU.

        Returns:
            Images (B, 3, S, S) with values from 0 to 1, and the class names of the B images.
        """
        preprocessing = self.preprocessing(recipe)
        inputs = self._data_module.image_inputs(recipe, self._cached_network(recipe), preprocessing)
        images, labels, _ = next(self._trial_data(recipe, inputs).training_batches(1))
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        return (images.cpu() * std + mean).clamp(0, 1), [self.splits.classes[label] for label in labels]

    def dry_run(self, recipe: Recipe) -> None:
        """Runs a forward and backward pass on a small batch of noise unless the head is solved; discards the gradients.

        Raises:
            TrainingError: The network cannot be trained.
        """
        cached = self._cached_network(recipe)
        network = self.untrained_network(recipe)
        size, count = network.spec.image_size, min(2, recipe.training.batch_size, len(self.splits.train))
        images = torch.randn(count, 3, size, size).to(self.device, memory_format=torch.channels_last)
        for phase in phase_recipes(recipe):
            if phase.head.kind != "linear":
                self._require_solvable(phase, network)
        if recipe.head.kind != "linear":
            return
        cached.trainable.train()
        with trial_failures("first step"), autocast(self.device, self.precision):
            logits, auxiliary_logits = network.forward_with_auxiliary(images)
            losses = torch.stack([each.float().sum() for each in (logits, *auxiliary_logits)])
            losses.sum().backward()  # type: ignore[no-untyped-call]
        network.zero_grad(set_to_none=True)
        self.untrained_network(recipe)  # the forward pass has updated running statistics

    def select_precision(self, recipe: Recipe) -> str:
        """Returns the precision for a study; see `precision.select_precision`."""
        return select_precision(recipe, self.device, lambda: self._cached_network(recipe).network)

    def pretrained_features(self, recipe: Recipe) -> Tensor:
        """Returns the features (N, F) of all training and validation images before training."""
        network = self.untrained_network(recipe)
        return self.features(recipe, network, range(len(self.splits.development)))

    @torch.inference_mode()
    def features(self, recipe: Recipe, network: Network, positions: Sequence[int]) -> Tensor:
        """Returns the head's inputs (N, F) in eval mode for images at the given positions in `Splits.development`."""
        network.eval()
        inputs = self._inputs(recipe, self._cached_network(recipe))
        features: list[Tensor] = []
        with network.register_feature_hook(features.append), autocast(self.device, self.precision):
            for batch in batch_indices(len(positions), inputs.evaluation_batch, shuffle=False):
                inputs.logits(inputs.load([positions[index] for index in batch]))
        return torch.cat(features)

    def out_of_fold_networks(self, recipe: Recipe, result: FitResult) -> Generator[tuple[Network, TrialData]]:
        """For each fold, yields a network trained on all other folds, together with that fold's trial data.

        Each network is trained for the trial's best number of epochs. The yielded network is always the same
        object. Its original weights are restored when the generator ends or is closed.
        """
        cached = self._cached_network(recipe)
        weights, classifier = cached.trainable.copy(), cached.network.classifier
        try:
            for fold in self._trial_data(recipe, self._inputs(recipe, cached)).by_fold(self.splits.folds):
                yield self._refit(recipe, fold, result), fold
        finally:
            cached.trainable.restore(weights)
            cached.network.set_classifier(classifier)

    def network_spec(self, recipe: Recipe) -> NetworkSpec:
        """Returns the architecture of a trial's network."""
        size = self.preprocessing(recipe).image_size
        counts = tuple(map(len, head_rows(recipe, self.splits.classes)))
        labels = counts if any(count > 1 for count in counts) else ()
        return NetworkSpec(recipe.backbone.architecture, len(self.splits.classes), recipe.head.dropout, size, labels)

    def preprocessing(self, recipe: Recipe) -> Preprocessing:
        """Returns the preprocessing for a trial's network."""
        preprocessing = catalog.backbone_info(recipe.backbone.architecture).preprocessing_for(recipe.backbone.weights)
        return replace(
            preprocessing,
            image_size=recipe.dataset.image_size or preprocessing.image_size,
            intensity=as_intensity(recipe.dataset.intensity),
        )

    def _train_phase(
        self,
        recipe: Recipe,
        starts: Sequence[Weights],
        after_epoch: Callable[[EpochResult], None],
        *,
        calibrated: bool = False,
    ) -> FitResult:
        """Trains or solves a phase; starts from pretrained weights, of which some are replaced by those in `starts`.

        If `calibrated`, metrics are computed after temperature scaling, and the result of a solved head has the scaled
        weights of all folds, with scaled logits.
        """
        inputs = self._inputs(recipe, self._cached_network(recipe))
        data = self._trial_data(recipe, inputs)
        if recipe.head.kind != "linear":
            return self._solve(recipe, data, after_epoch, calibrated=calibrated)
        options = FitOptions(
            self._training_config(recipe), self.precision, objective(recipe), after_epoch, calibrated=calibrated
        )
        with threads_for(recipe.training.batch_size * inputs.elements):
            if self.splits.folds:
                network = self.untrained_network(recipe)
                return cross_validate(network, data.by_fold(self.splits.folds), options, starts)
            return fit(self._network_with(recipe, *starts), data, options)

    def _solve(
        self, recipe: Recipe, data: TrialData, after_value: Callable[[EpochResult], None], *, calibrated: bool
    ) -> FitResult:
        folds, head = data.by_fold(self.splits.folds) if self.splits.folds else [data], self._solved_head(recipe)
        result = head.fit(folds, objective(recipe), after_value)
        if not calibrated and (self.splits.folds or recipe.head.kind == "knn"):  # the features of knn are stored
            return result
        temperature = result.best.metrics[TEMPERATURE] if calibrated else 1.0
        weights = [self._solved_weights(recipe, head, fold, result.best.number, temperature) for fold in folds]
        result = replace(result, logits=result.logits / temperature)
        if self.splits.folds:
            return replace(result, fold_weights=tuple(weights))
        return replace(result, weights=weights[0])

    def _solved_weights(
        self, recipe: Recipe, head: SolvedHead, data: TrialData, number: int, temperature: float
    ) -> dict[str, Tensor]:
        """Returns the linear head solved for the value with this number, divided by a temperature."""
        solution = head.refit(data, number)
        assert not isinstance(solution, NeighborClassifier), "a phase cannot end with a nearest-neighbor head"
        weight, bias = solution
        self._with_head(recipe, (weight / temperature, bias / temperature))
        return self._cached_network(recipe).trainable.copy()

    def _solved_head(self, recipe: Recipe) -> SolvedHead:
        """Resets the trial's network, extracts the features of all images, and returns a head to be solved on them."""
        network = self.untrained_network(recipe)
        self._require_solvable(recipe, network)
        features = self.features(recipe, network, range(len(self.splits.development)))
        return SolvedHead(recipe.head.kind, features, self.splits.classes, self._training_config(recipe))

    def _refit(self, recipe: Recipe, data: TrialData, result: FitResult) -> Network:
        """Repeats the phases that led to a result on other data, each for the same number of epochs or same value."""
        phases = phase_recipes(recipe)
        numbers = numbers_within_phases(phases, result.phases)
        if len(phases) == 1 and recipe.head.kind != "linear":
            return self._with_head(recipe, self._solved_head(recipe).refit(data, numbers[0]))
        weights: dict[str, Tensor] = {}
        for phase, number, end in zip(phases, numbers, result.phases, strict=False):
            if phase.head.kind != "linear":
                temperature = end.metrics[TEMPERATURE]
                weights = self._solved_weights(phase, self._solved_head(phase), data, number, temperature)
                continue
            network, of_phase = self._network_with(phase, weights), self._of_phase(phase, data)
            with threads_for(phase.training.batch_size * of_phase.inputs.elements):
                refit(network, of_phase, self._training_config(phase), precision=self.precision, epochs=number)
            weights = self._cached_network(phase).trainable.copy()
        return self._network_with(recipe, weights).eval()

    def _of_phase(self, phase: Recipe, data: TrialData) -> TrialData:
        """Returns the training and validation images of `data` with the inputs of another phase."""
        inputs = self._inputs(phase, self._cached_network(phase))
        return replace(self._trial_data(phase, inputs), train=data.train, validation=data.validation)

    def _network_with(self, recipe: Recipe, weights: Weights = MappingProxyType({})) -> Network:
        """Returns a trial's network before training, with some of its weights replaced."""
        network, cached = self.untrained_network(recipe), self._cached_network(recipe)
        if weights:
            cached.trainable.restore({**cached.initial_state, **weights})
        return network

    def _with_head(self, recipe: Recipe, solution: Solution) -> Network:
        network = self.untrained_network(recipe)
        if isinstance(solution, NeighborClassifier):
            network.set_classifier(solution)
        else:
            network.set_head(*solution)
        return network.eval()

    def _require_solvable(self, recipe: Recipe, network: Network) -> None:
        kind, backbone = recipe.head.kind, recipe.backbone.architecture
        if not network.head_is_output:
            raise TrainingError(
                f"head.kind: {kind} cannot be used because the logits of {backbone} are not the output of a single "
                "head; use head.kind: linear"
            )
        if kind == "knn":
            require_storable(len(self.splits.train), network.features, backbone)

    def _training_config(self, recipe: Recipe) -> TrainingConfig:
        labels = self._labels[: len(self.splits.train)]
        return resolve_class_weights(recipe.training, labels, len(self.splits.classes), self._say_once)

    def _cached_network(self, recipe: Recipe) -> CachedNetwork:
        architecture, frozen_through = recipe.backbone.architecture, recipe.backbone.freeze_through
        key = (architecture, frozen_through, recipe.seed)  # the seed determines the initial weights of the head
        if key not in self._networks:
            for other in [other for other in self._networks if other[2] != recipe.seed]:
                self._evict(other)  # a study uses one seed after the other
            spec, pretrained = self.network_spec(recipe), self._pretrained[architecture]
            rows = [row for rows in head_rows(recipe, self.splits.classes) for row in rows]
            with trial_failures(str(architecture), SMALLER_IMAGES):
                self._networks[key] = prepare_network(spec, pretrained, frozen_through, recipe.seed, self.device, rows)
            if summary := self._networks[key].network.weights_summary:
                self._say_once(f"{architecture}: {summary}")
        self._networks.move_to_end(key)
        while len(self._networks) > self._cached_networks:
            self._evict(next(iter(self._networks)))
        return self._networks[key]

    def _evict(self, key: tuple[Architecture, str, int]) -> None:
        del self._networks[key]
        self._data_module.evict(*key)

    def _inputs(self, recipe: Recipe, cached: CachedNetwork) -> InputSource:
        return self._data_module.inputs(recipe, cached, self.preprocessing(recipe), self.precision)

    def _trial_data(self, recipe: Recipe, inputs: InputSource) -> TrialData:
        """Returns the data of the training and validation splits; image positions refer to `Splits.development`."""
        count = len(self.splits.train)
        return TrialData(
            inputs,
            self._labels,
            tuple(range(count)),
            tuple(range(count, len(self.splits.development))),
            recipe.training.batch_size,
            recipe.seed,
            balanced=recipe.training.sampling == "balanced",
            weights=self._weights,
        )
