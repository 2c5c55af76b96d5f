"""Inputs for trials: images, stored features or recomputed features.

Stored and recomputed features are bitwise identical, so the choice between them affects only the running time.
"""

import torch
from rich.filesize import decimal

from transfer_model.architecture import Architecture
from transfer_model.preprocessing import Preprocessing
from transfer_platform.data.splits import Splits
from transfer_platform.loading.image_loader import ImageLoader
from transfer_platform.loading.sampler import ViewSchedule
from transfer_platform.progress import Progress, Say, once
from transfer_platform.recipe.schema import Recipe
from transfer_platform.tensor_store.errors import StoreError
from transfer_platform.tensor_store.rows import Rows
from transfer_platform.tensor_store.store import Store
from transfer_platform.training.batches import FeatureInputs, ImageInputs, InputSource
from transfer_platform.training.cost_model import study_costs
from transfer_platform.training.network_cache import CachedNetwork
from transfer_platform.training.profile import measure_cost
from transfer_platform.training.stored_features import ComputedFeatures, FrozenPrefix, stored_features

FeatureRows = tuple[Rows, Rows | None]
"""Features of all original images, and features of the augmented training images (None without augmentation)."""


class DataModule:
    """Loads the inputs for the trials of one study; see `TrialTrainer` for the arguments."""

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
        self._features: dict[tuple[Architecture, str, ViewSchedule], FeatureRows] = {}
        self._say_once = once(say)

    def inputs(
        self, recipe: Recipe, cached: CachedNetwork, preprocessing: Preprocessing, precision: str
    ) -> InputSource:
        """Returns the inputs for a trial; the recipe must not contain search ranges."""
        views = _view_schedule(recipe, cached)
        images = self._image_loader(preprocessing, views.policy)
        self._report_limits(recipe, cached, views)
        if cached.partition is None or not views.stored_count:
            return ImageInputs(cached.network, images, views, recipe.training.batch_size)
        key = (recipe.backbone.architecture, recipe.backbone.freeze_through, views)
        if key not in self._features:
            prefix = FrozenPrefix(cached.partition, precision, self._device, preprocessing.image_size)
            self._features[key] = self._stored(recipe, prefix, images, views) or self._computed(prefix, images, views)
        return FeatureInputs(cached.partition, *self._features[key], views, images.digests, self._device)

    def image_inputs(self, recipe: Recipe, cached: CachedNetwork, preprocessing: Preprocessing) -> ImageInputs:
        """Returns the images from which a trial's inputs are computed; they are decoded on every use."""
        views = _view_schedule(recipe, cached)
        images = ImageLoader(self._splits.development, preprocessing, views.policy, self._device)
        return ImageInputs(cached.network, images, views, recipe.training.batch_size)

    def evict(self, backbone: Architecture, frozen_through: str, seed: int) -> None:
        """Releases the features of a network that is no longer cached."""
        evicted = (backbone, frozen_through, seed)
        self._features = {key: rows for key, rows in self._features.items() if (*key[:2], key[2].seed) != evicted}

    def _report_limits(self, recipe: Recipe, cached: CachedNetwork, views: ViewSchedule) -> None:
        if views.policy != "none" and not views.varies:
            self._say_once(
                "augmentation is disabled because features.views is 1; "
                f"set features.views: 8 to store eight {views.policy} views of each image"
            )
        if cached.partition_error:
            self._say_once(f"the frozen layers are run again in every epoch: {cached.partition_error}")
        if views.policy != "none" and recipe.features.views not in (1, views.count):
            self._say_once(
                f"features.views: {recipe.features.views} is ignored because no layer is frozen; "
                "every epoch uses new views"
            )

    def _image_loader(self, preprocessing: Preprocessing, policy: str) -> ImageLoader:
        key = (preprocessing, policy)
        if key not in self._images:
            self._images[key] = ImageLoader(
                self._splits.development, *key, self._device, self._store, self._progress, self._say_once
            )
        return self._images[key]

    def _stored(
        self, recipe: Recipe, prefix: FrozenPrefix, images: ImageLoader, views: ViewSchedule
    ) -> FeatureRows | None:
        """Returns stored features, or None if storing is disabled, impossible or slower than recomputing."""
        if self._store is None or not self._should_store(self._store, recipe, prefix, views):
            return None
        # Decoded images are not stored, because they are not needed again once the features are stored.
        images = ImageLoader(images.records, images.preprocessing, views.policy, self._device)
        positions = range(len(self._splits.development))
        try:
            original = stored_features(prefix, images, positions, None, self._store, self._progress, self._say)
            if not views.varies:
                return original, None
            rows = self._view_rows(views)
            return original, stored_features(prefix, images, *rows, self._store, self._progress, self._say)
        except StoreError as error:
            self._say(f"features are recomputed in every epoch: {error}")
            return None

    def _computed(self, prefix: FrozenPrefix, images: ImageLoader, views: ViewSchedule) -> FeatureRows:
        original = ComputedFeatures(prefix, images, range(len(images.records)), None)
        augmented = ComputedFeatures(prefix, images, *self._view_rows(views)) if views.varies else None
        return original, augmented

    def _should_store(self, store: Store, recipe: Recipe, prefix: FrozenPrefix, views: ViewSchedule) -> bool:
        cost = measure_cost(prefix, recipe.backbone.architecture, recipe.backbone.freeze_through)
        epochs = max(self._epochs, recipe.training.epochs)
        costs = study_costs(self._splits, views.stored_count, epochs, self._trials, cost)
        if not costs.worth_storing:
            self._say_once(
                f"features are recomputed in every epoch, which takes about {costs.recomputed_seconds:.0f} s in total; "
                f"storing and reading them ({decimal(costs.bytes)}) would take about {costs.stored_seconds:.0f} s"
            )
            return False
        if not store.fits(prefix.spec, costs.rows):
            self._say_once(
                f"features are recomputed in every epoch: the cache has no room for {decimal(costs.bytes)}; "
                "raise PLATFORM_CACHE_LIMIT or run `platform cache clear`"
            )
            return False
        return True

    def _view_rows(self, views: ViewSchedule) -> tuple[list[int], list[int]]:
        """Returns the image position and the seed of each augmented view of the training images, grouped by image."""
        rows = [
            (position, views.view_seed(image.sha256, index))
            for position, image in enumerate(self._splits.train)
            for index in range(views.stored_count)
        ]
        return [position for position, _ in rows], [seed for _, seed in rows]


def _view_schedule(recipe: Recipe, cached: CachedNetwork) -> ViewSchedule:
    # If no layer is frozen, new views in every epoch cost nothing extra.
    count = recipe.features.views if cached.network.frozen else "unlimited"
    policy = recipe.dataset.augmentation if recipe.head.kind == "linear" else "none"
    return ViewSchedule(policy, count, recipe.seed)
