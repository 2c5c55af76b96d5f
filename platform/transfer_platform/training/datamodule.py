"""Provides trials with inputs: images, or features that are stored or computed each time.

Where the network was split, stored or not makes no difference but in time: both are the same to the bit.
"""

from __future__ import annotations

import torch
from rich.filesize import decimal

from transfer_model.preprocessing import Preprocessing
from transfer_platform.data.splits import Splits
from transfer_platform.loading.images import ImageLoader
from transfer_platform.loading.sampler import ViewSchedule
from transfer_platform.progress import Progress, Say, once
from transfer_platform.recipe.schema import Recipe
from transfer_platform.tensor_store.errors import StoreError
from transfer_platform.tensor_store.rows import Rows
from transfer_platform.tensor_store.store import Store
from transfer_platform.training.batches import InputSource
from transfer_platform.training.cost_model import study_costs
from transfer_platform.training.features import ComputedFeatures, FrozenPrefix, stored_features
from transfer_platform.training.inputs import FeatureInputs, ImageInputs
from transfer_platform.training.network_cache import CachedNetwork
from transfer_platform.training.profile import measure_cost


class DataModule:
    """Inputs for the trials of one study.

    Args:
        splits: The images.
        device: Where batches are made.
        trials: How many the study has.
        epochs: How many a trial may have at most.
        store: Where features and decoded images are kept; None keeps nothing.
        progress: Told while features are computed.
        say: Given the lines that are worth keeping.
    """

    def __init__(
        self,
        splits: Splits,
        device: torch.device,
        trials: int,
        epochs: int,
        store: Store | None,
        progress: Progress,
        say: Say,
    ) -> None:
        self._splits, self._device, self._trials, self._epochs = splits, device, trials, epochs
        self._store, self._progress, self._say = store, progress, say
        self._images: dict[tuple[Preprocessing, str], ImageLoader] = {}
        self._features: dict[tuple[str, str, ViewSchedule], tuple[Rows, Rows | None]] = {}
        self._say_once = once(say)

    def inputs(
        self, recipe: Recipe, prepared: CachedNetwork, preprocessing: Preprocessing, precision: str
    ) -> InputSource:
        """What a trial learns from.

        Args:
            recipe: Without ranges.
            prepared: Its network.
            preprocessing: Of its backbone.
            precision: Of the study.
        """
        views = view_schedule(recipe, frozen=prepared.network.frozen > 0)
        images = self._image_loader(preprocessing, views.policy)
        if views.policy != "none" and not views.varies:
            self._say_once(
                f"augmentation is off: features.views is 1, so that every epoch sees the images as they are; "
                f"features: {{views: 8}} keeps eight {views.policy} views of each"
            )
        if prepared.partition_error:
            self._say_once(f"the frozen part runs in every epoch: {prepared.partition_error}")
        if views.policy != "none" and recipe.features.views not in (1, views.count):
            self._say_once(
                f"features.views is {recipe.features.views}, but nothing is frozen: each epoch sees new views"
            )
        if prepared.partition is not None and views.stored_count:
            key = (recipe.backbone.name, recipe.backbone.freeze_through, views)
            if key not in self._features:
                prefix = FrozenPrefix(prepared.partition, precision, self._device, preprocessing.image_size)
                self._features[key] = self._stored(recipe, prefix, images, views) or self._computed(
                    prefix, images, views
                )
            return FeatureInputs(
                prepared.partition, *self._features[key], views, images.digests, self._device
            )
        return ImageInputs(prepared.network, images, views, recipe.training.batch_size)

    def evict(self, backbone: str, place: str) -> None:
        """Lets go of what belongs to a network that is kept no more."""
        self._features = {key: held for key, held in self._features.items() if key[:2] != (backbone, place)}

    def _image_loader(self, preprocessing: Preprocessing, policy: str) -> ImageLoader:
        key = (preprocessing, policy)
        if key not in self._images:
            self._images[key] = ImageLoader(
                self._splits.development,
                preprocessing,
                policy,
                self._device,
                self._store,
                self._progress,
                self._say_once,
            )
        return self._images[key]

    def _stored(
        self, recipe: Recipe, prefix: FrozenPrefix, images: ImageLoader, views: ViewSchedule
    ) -> tuple[Rows, Rows | None] | None:
        """None where to compute them each time is the better choice, or where there is no room."""
        if self._store is None or not self._pays(self._store, recipe, prefix, views):
            return None
        return self._obtained(self._store, prefix, images, views)

    def _computed(
        self, prefix: FrozenPrefix, images: ImageLoader, views: ViewSchedule
    ) -> tuple[Rows, Rows | None]:
        """What would have been stored, computed each time: the same to the bit, and slower."""
        plain = ComputedFeatures(prefix, images, range(len(images.records)), None)
        return plain, ComputedFeatures(prefix, images, *self._rows(views)) if views.varies else None

    def _pays(self, store: Store, recipe: Recipe, prefix: FrozenPrefix, views: ViewSchedule) -> bool:
        measured = measure_cost(prefix, recipe.backbone.name, recipe.backbone.freeze_through)
        epochs = max(self._epochs, recipe.training.epochs)
        costs = study_costs(self._splits, views.stored_count, epochs, self._trials, measured)
        if not costs.worth_storing:
            self._say(
                f"the frozen part runs in every epoch, about {costs.computed:.0f} s in all: "
                f"to store what it makes ({decimal(costs.bytes)}) would take about {costs.stored:.0f} s"
            )
            return False
        if not store.fits(prefix.layout, costs.rows):
            self._say(
                f"the frozen part runs in every epoch: the cache has no room for what it makes "
                f"({decimal(costs.bytes)}); PLATFORM_CACHE_LIMIT and `platform cache clear` make room"
            )
            return False
        return True

    def _obtained(
        self, store: Store, prefix: FrozenPrefix, images: ImageLoader, views: ViewSchedule
    ) -> tuple[Rows, Rows | None] | None:
        """The features of every image as it is, and of the views of those that teach."""
        everything = range(len(self._splits.development))
        # What is kept is what the prefix makes of the images, and not the images as well.
        images = ImageLoader(images.records, images.preprocessing, views.policy, self._device)
        try:
            plain = stored_features(prefix, images, everything, None, store, self._progress, self._say)
            varied = None
            if views.varies:
                positions, seeds = self._rows(views)
                varied = stored_features(prefix, images, positions, seeds, store, self._progress, self._say)
        except StoreError as error:
            self._say(f"the frozen part runs in every epoch: {error}")
            return None
        return plain, varied

    def _rows(self, views: ViewSchedule) -> tuple[list[int], list[int]]:
        """Position and seed of every view, those of one training image after those of another."""
        rows = [
            (position, views.seed_of(image.sha256, number))
            for position, image in enumerate(self._splits.train)
            for number in range(views.stored_count)
        ]
        return [position for position, _ in rows], [seed for _, seed in rows]


def view_schedule(recipe: Recipe, *, frozen: bool) -> ViewSchedule:
    """What the epochs of a trial see of its training images: with nothing frozen, a new view every time.

    Args:
        recipe: Without ranges.
        frozen: Whether any of the network is.
    """
    count = recipe.features.views if frozen else "unlimited"
    return ViewSchedule(recipe.dataset.augmentation, count, recipe.seed)
