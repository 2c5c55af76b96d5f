"""The bench: what the trials of a study share, and how a resolved recipe becomes a trained network on it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from transfer_model import catalog
from transfer_model.network import Network, NetworkSpec
from transfer_model.preprocessing import Preprocessing
from transfer_platform.data.splits import Splits
from transfer_platform.loading.sampler import batch_indices
from transfer_platform.progress import Progress, Say, once, silent
from transfer_platform.recipe.schema import Recipe, TrainingConfig
from transfer_platform.tensor_store.store import Store
from transfer_platform.training.batches import InputSource, TrialData
from transfer_platform.training.class_weights import resolve_class_weights
from transfer_platform.training.datamodule import DataModule
from transfer_platform.training.device import autocast, choose_precision, threads_for
from transfer_platform.training.loop import (
    EpochResult,
    FitOptions,
    FitResult,
    Objective,
    cross_validate,
    fit,
    refit,
)
from transfer_platform.training.network_cache import CachedNetwork, prepare_network

TIMED_IMAGES = 4
"""Images in a step that is timed on a CPU."""
CACHED_NETWORKS = 4
"""Networks that are kept ready; a search over more of them builds the least recently used one again."""


class TrialTrainer:
    """Turns resolved recipes of one study into trained networks.

    Args:
        splits: The images.
        pretrained: The weights file of each backbone by its name in the recipe; None: random weights.
        device: Where the networks live.
        trials: How many the study has; what pays depends on it.
        epochs: How many each of them may have at most; as well.
        store: Where features and decoded images are kept; None keeps nothing.
        progress: Told while features are computed.
        say: Given the lines that are worth keeping.

    Attributes:
        splits: The images.
        device: Where the networks live.
        precision: What they compute in; float32 until somebody sets it.
    """

    def __init__(
        self,
        splits: Splits,
        pretrained: Mapping[str, Path | None],
        device: torch.device,
        *,
        trials: int = 1,
        epochs: int = 1,
        store: Store | None = None,
        progress: Progress = silent,
        say: Say = silent,
    ) -> None:
        self.splits, self._pretrained, self.device = splits, pretrained, device
        self.precision = "float32"
        self._provision = DataModule(splits, device, trials, epochs, store, progress, say)
        self._labels = torch.tensor([splits.classes.index(image.label) for image in splits.development])
        self._weights = _weights(splits)
        self._say_once = once(say)
        self._networks: OrderedDict[tuple[str, str], CachedNetwork] = OrderedDict()

    def train(self, recipe: Recipe, after_epoch: Callable[[EpochResult], None]) -> FitResult:
        """Trains a network from its pretrained weights to its best epoch, or one a fold.

        Args:
            recipe: Without ranges.
            after_epoch: Called with every finished epoch; what it raises ends the training.

        Raises:
            DivergedError: The loss is not a finite number any more.
        """
        prepared = self._prepared(recipe)
        inputs = self._inputs(recipe, prepared)
        network = prepared.reset(recipe.seed, recipe.head.dropout)
        materials = self._materials(recipe, inputs)
        course = FitOptions(self._settled(recipe), self.precision, objective(recipe), after_epoch)
        with threads_for(recipe.training.batch_size * inputs.elements):
            if self.splits.folds:
                return cross_validate(network, materials, course)
            return fit(network, materials[0], course)

    def finalize(self, recipe: Recipe, fitted: FitResult) -> Network:
        """The network that a trial leaves: at its best weights; after folds, trained anew on all images.

        Args:
            recipe: Of the trial.
            fitted: What it came to, from this process or an earlier one.
        """
        prepared = self._prepared(recipe)
        if fitted.weights:
            network = prepared.reset(recipe.seed, recipe.head.dropout)
            prepared.trainable.restore(fitted.weights)
            return network.eval()
        material = self._material(recipe, self._inputs(recipe, prepared))
        everything = replace(material, train=tuple(range(len(self.splits.train))))
        return self._refitted(recipe, everything, fitted.best.number)

    def _refitted(self, recipe: Recipe, material: TrialData, epochs: int) -> Network:
        """A network that some images have taught for a number of epochs."""
        network = self._prepared(recipe).reset(recipe.seed, recipe.head.dropout)
        with threads_for(recipe.training.batch_size * material.inputs.elements):
            refit(network, material, self._settled(recipe), precision=self.precision, epochs=epochs)
        return network.eval()

    def select_precision(self, recipe: Recipe) -> str:
        """What `precision: auto` means for a study, found by timing a step of one of its recipes.

        The step is what its trials will spend their time with: a forward pass where the whole backbone is
        frozen, forward and backward elsewhere.
        """
        if recipe.training.precision != "auto":
            return recipe.training.precision
        network = self._prepared(recipe).network
        size = self.preprocessing(recipe).image_size
        # A batch fills a GPU; a CPU is busy with a few images, and slow where it has no such arithmetic.
        count = TIMED_IMAGES if self.device.type == "cpu" else recipe.training.batch_size
        images = torch.zeros(count, 3, size, size, device=self.device)
        images = images.to(memory_format=torch.channels_last)
        learns = recipe.backbone.freeze_through != "all"

        def step() -> None:
            network.train(learns)
            with torch.set_grad_enabled(learns):
                logits = network(images)
            if learns:
                logits.float().sum().backward()

        chosen = choose_precision(self.device, step)
        network.zero_grad(set_to_none=True)
        return chosen

    def pretrained_features(self, recipe: Recipe) -> Tensor:
        """What the head of a network is given of all images that teach, before anything learns: (N, F).

        Args:
            recipe: Without ranges.
        """
        network = self._prepared(recipe).reset(recipe.seed, recipe.head.dropout)
        return self.features(recipe, network, range(len(self.splits.development)))

    @torch.inference_mode()
    def features(self, recipe: Recipe, network: Network, positions: Sequence[int]) -> Tensor:
        """What a network's head is given of images, (N, F).

        Args:
            recipe: It was trained by.
            network: On this bench; in eval mode afterwards.
            positions: Of the images among `SplitsConfig.development`.
        """
        network.eval()
        inputs = self._inputs(recipe, self._prepared(recipe))
        features: list[Tensor] = []
        with network.register_feature_hook(features.append), autocast(self.device, self.precision):
            for batch in batch_indices(len(positions), inputs.evaluation_batch, shuffle=False):
                inputs.logits(inputs.load([positions[index] for index in batch]))
        return torch.cat(features)

    def networks_without_fold(
        self, recipe: Recipe, fitted: FitResult
    ) -> Generator[tuple[Network, TrialData]]:
        """The network as each fold's others teach it, as long as the trial's best epoch, and that fold.

        It is one network, which has its weights of before again when the generator is closed.
        """
        prepared = self._prepared(recipe)
        before = prepared.trainable.copy()
        try:
            for fold in self._materials(recipe, self._inputs(recipe, prepared)):
                yield self._refitted(recipe, fold, fitted.best.number), fold
        finally:
            prepared.trainable.restore(before)

    def spec(self, recipe: Recipe) -> NetworkSpec:
        """The shape of a trial's network."""
        return NetworkSpec(
            backbone=recipe.backbone.name,
            classes=len(self.splits.classes),
            dropout=recipe.head.dropout,
            image_size=self.preprocessing(recipe).image_size,
        )

    def preprocessing(self, recipe: Recipe) -> Preprocessing:
        """How a trial's network is given images."""
        preprocessing = catalog.backbone_info(recipe.backbone.name).preprocessing_for(recipe.backbone.weights)
        size = recipe.dataset.image_size or preprocessing.image_size
        return replace(preprocessing, image_size=size)

    def _settled(self, recipe: Recipe) -> TrainingConfig:
        labels = self._labels[: len(self.splits.train)]
        return resolve_class_weights(recipe.training, labels, len(self.splits.classes), self._say_once)

    def _prepared(self, recipe: Recipe) -> CachedNetwork:
        key = (recipe.backbone.name, recipe.backbone.freeze_through)
        if key not in self._networks:
            weights = self._pretrained[recipe.backbone.name]
            spec, through = self.spec(recipe), recipe.backbone.freeze_through
            self._networks[key] = prepare_network(spec, weights, through, recipe.seed, self.device)
        self._networks.move_to_end(key)
        while len(self._networks) > CACHED_NETWORKS:
            self._provision.evict(*self._networks.popitem(last=False)[0])
        return self._networks[key]

    def _inputs(self, recipe: Recipe, prepared: CachedNetwork) -> InputSource:
        return self._provision.inputs(recipe, prepared, self.preprocessing(recipe), self.precision)

    def _materials(self, recipe: Recipe, inputs: InputSource) -> list[TrialData]:
        """One without folds; with them one for each, with all other images to learn from."""
        whole = self._material(recipe, inputs)
        if not self.splits.folds:
            return [whole]
        folds = self.splits.folds
        return [
            replace(
                whole,
                train=tuple(position for position, held_in in enumerate(folds) if held_in != fold),
                validation=tuple(position for position, held_in in enumerate(folds) if held_in == fold),
            )
            for fold in range(self.splits.fold_count)
        ]

    def _material(self, recipe: Recipe, inputs: InputSource) -> TrialData:
        """Train and validation as they were split; positions are those of `SplitsConfig.development`."""
        splits = self.splits
        count = len(splits.train)
        return TrialData(
            inputs,
            self._labels,
            tuple(range(count)),
            tuple(range(count, len(splits.development))),
            recipe.training.batch_size,
            recipe.seed,
            balanced=recipe.training.sampling == "balanced",
            weights=self._weights,
        )


def _weights(splits: Splits) -> Tensor | None:
    """How much each image of `SplitsConfig.development` counts in the loss (N,); None where all count the same."""
    if all(image.weight == 1 for image in splits.train):
        return None
    return torch.tensor([image.weight for image in splits.development])


def objective(recipe: Recipe) -> Objective:
    """The metric that ranks epochs and trials (the loss without a search), and whether less is better."""
    if recipe.search is None:
        return Objective("validation/loss", True)
    return Objective(recipe.search.metric, recipe.search.minimizes)
