"""The bench: what the trials of a study share, and how a resolved recipe becomes a trained network on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from transfer_model import catalogue
from transfer_model.classifier import Classifier
from transfer_model.description import ModelDescription
from transfer_model.network import Network, NetworkSpec, build
from transfer_model.preprocessing import Preprocessing
from transfer_platform.data.catalog import Picture
from transfer_platform.data.dataset import PictureDataset, loader
from transfer_platform.data.splits import Splits
from transfer_platform.features import PREFIX_BATCH, Features, compute
from transfer_platform.network.freezing import freeze_through
from transfer_platform.progress import Progress, Step, silent
from transfer_platform.recipe.schema import Recipe
from transfer_platform.training.device import choose_precision
from transfer_platform.training.fitting import Epoch, Fit, fit
from transfer_platform.training.material import Batch, FeatureMaterial, Material, PictureMaterial, feeding

TIMED_IMAGES = 4
"""Images in a step that is timed on a CPU."""


class Bench:
    """Turns resolved recipes of one study into trained networks.

    Args:
        splits: The pictures.
        pretrained: The weights file of each backbone by its name in the recipe; None: random weights.
        device: Where the networks live.
        progress: Told while features are computed.

    Attributes:
        device: Where the networks live.
        precision: What they compute in; float32 until somebody sets it.
    """

    def __init__(
        self,
        splits: Splits,
        pretrained: Mapping[str, Path | None],
        device: torch.device,
        progress: Progress = silent,
    ) -> None:
        self._splits, self._pretrained, self.device = splits, pretrained, device
        self.precision = "float32"
        self._progress = progress
        self._features: dict[str, tuple[Features, Features]] = {}

    def network(self, recipe: Recipe) -> Network:
        """A network as a trial starts with it: pretrained, with a fresh head, frozen, on its device.

        The head's first weights depend on the recipe's seed alone.
        """
        torch.manual_seed(recipe.seed)
        network = build(self._spec(recipe), self._pretrained[recipe.backbone.name])
        freeze_through(network, recipe.backbone.freeze_through)
        return network.to(self.device).to(memory_format=torch.channels_last)

    def train(self, recipe: Recipe, after_epoch: Callable[[Epoch], None]) -> tuple[Network, Fit]:
        """Trains a network from its pretrained weights to its best epoch.

        Args:
            recipe: Without ranges.
            after_epoch: Called with every finished epoch; what it raises ends the training.

        Raises:
            DivergedError: The loss is not a finite number any more.
        """
        network = self.network(recipe)
        metric, minimizes = ranking(recipe)
        fitted = fit(
            network,
            self._material(recipe, network),
            recipe.training,
            precision=self.precision,
            metric=metric,
            minimizes=minimizes,
            after_epoch=after_epoch,
        )
        return network, fitted

    def fastest_precision(self, recipe: Recipe) -> str:
        """What `precision: auto` means for a study, found by timing a step of one of its recipes.

        The step is what its trials will spend their time with: a forward pass where the whole backbone is
        frozen, forward and backward elsewhere.
        """
        if recipe.training.precision != "auto":
            return recipe.training.precision
        network = self.network(recipe)
        size = self._preprocessing(recipe).image_size
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

        return choose_precision(self.device, step)

    def serve(self, recipe: Recipe, network: Network, folder: Path) -> Path:
        """Writes a trained network in the form in which it is served.

        Args:
            recipe: It was trained by.
            network: At the weights to serve.
            folder: Gets the weights and what describes them; made where it does not exist.

        Returns:
            The folder.
        """
        folder.mkdir(parents=True, exist_ok=True)
        # A pyfunc runs on a CPU unless told otherwise: what an accelerator is fast in would be slow there.
        precision = self.precision if self.device.type == "cpu" else "float32"
        description = ModelDescription(
            self._spec(recipe), self._splits.classes, self._preprocessing(recipe), precision
        )
        Classifier(description, network, str(self.device)).save(folder)
        return folder

    def _spec(self, recipe: Recipe) -> NetworkSpec:
        return NetworkSpec(
            backbone=recipe.backbone.name,
            classes=len(self._splits.classes),
            dropout=recipe.head.dropout,
            image_size=self._preprocessing(recipe).image_size,
        )

    def _preprocessing(self, recipe: Recipe) -> Preprocessing:
        preprocessing = catalogue.outline(recipe.backbone.name).prepared_for(recipe.backbone.weights)
        size = recipe.dataset.image_size or preprocessing.image_size
        return replace(preprocessing, image_size=size)

    def _material(self, recipe: Recipe, network: Network) -> Material:
        if not _learns_from_features(recipe, network):
            return PictureMaterial(self._splits, recipe, self._preprocessing(recipe), self.device)
        name = recipe.backbone.name
        if name not in self._features:
            preprocessing = self._preprocessing(recipe)
            self._features[name] = (
                self._compute(network, self._splits.train, preprocessing),
                self._compute(network, self._splits.validation, preprocessing),
            )
        return FeatureMaterial(*self._features[name], recipe)

    def _compute(
        self, network: Network, pictures: tuple[Picture, ...], preprocessing: Preprocessing
    ) -> Features:
        dataset = PictureDataset(pictures, self._splits.classes, preprocessing)
        batches = loader(dataset, PREFIX_BATCH, shuffle=False, **feeding(self.device))
        return compute(network, self._told(batches, len(pictures)), self.precision)

    def _told(self, batches: Iterable[Batch], total: int) -> Iterator[Batch]:
        done = 0
        for batch in batches:
            yield batch
            done += len(batch[1])
            self._progress(Step("features of the frozen backbone", done, total, "images"))


def ranking(recipe: Recipe) -> tuple[str, bool]:
    """The metric that ranks epochs and trials (the loss without a search), and whether less is better."""
    if recipe.search is None:
        return "validation/loss", True
    return recipe.search.metric, recipe.search.minimizes


def _learns_from_features(recipe: Recipe, network: Network) -> bool:
    """Whether a trial may see features in place of images: only where it cannot make a difference."""
    fixed = recipe.backbone.freeze_through == "all" and recipe.dataset.augmentation == "none"
    return fixed and network.separable
