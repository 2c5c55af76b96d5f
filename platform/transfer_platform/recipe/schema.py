"""Recipe schema: every field with its type, unit, bounds and default.

A `Searchable` or `Option` field may hold a range until `recipe.resolve` replaces it with the value of a trial.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from transfer_platform.recipe.search_space import MODEL_CONFIG, Option, Searchable
from transfer_registry.rules import OverChampion, PerClassRecall, Rule, Threshold

Augmentation = Literal["none", "light", "medium", "trivial", "rand"]
Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["constant", "cosine", "one_cycle", "plateau"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
SearchMetric = Literal["validation/loss", "validation/accuracy", "validation/macro_f1", "validation/macro_recall"]

Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]

EMBEDDED_DATASETS = ("digits",)
"""Datasets included in the installation, used as `dataset.source: embedded:NAME`."""

HOLDOUT_FRACTION = 0.2
"""Default for `dataset.splits.validation` and `.test` where no such split is detected."""

IMBALANCE_RATIO = 1.5
"""Largest to smallest class size above which `class_weights: auto` uses balanced weights."""

FALSE_ALARM_RATE = 0.05
"""Default of `promotion.false_alarms`, also used for a recipe without `promotion:`."""

FolderOrFraction = Annotated[
    Annotated[Fraction, Tag("fraction")] | Annotated[str, Tag("folder")],
    Discriminator(lambda value: "folder" if isinstance(value, str) else "fraction"),
]


def _validation_tag(value: object) -> str:
    if isinstance(value, dict | BaseModel):
        return "cross_validation"
    return "folder" if isinstance(value, str) else "fraction"


class Section(BaseModel):
    """Base class of all sections: immutable, without undeclared fields."""

    model_config = MODEL_CONFIG


class FoldsConfig(Section):
    """Cross-validation: every training image is held out exactly once."""

    folds: Annotated[int, Field(ge=2, le=20)]
    """Number of folds, and of networks; each network is validated on one fold and trained on the others."""


FolderFractionOrFolds = Annotated[
    Annotated[Fraction, Tag("fraction")]
    | Annotated[str, Tag("folder")]
    | Annotated[FoldsConfig, Tag("cross_validation")],
    Discriminator(_validation_tag),
]


class SplitsConfig(Section):
    """Training, validation and test images; unset splits are detected from folder names."""

    train: str | None = None
    """Folder with a subfolder per class, relative to the source ("." is the source). Unset: detected."""

    validation: FolderFractionOrFolds | None = None
    """Images that rank trials: a folder, a fraction of train, or `{folds: 5}`. Unset: detected, else 0.2."""

    test: FolderOrFraction | None = None
    """Images used only by the promotion gate: a folder or a fraction of train. Unset: detected, else 0.2."""


class DatasetConfig(Section):
    """The images: where they are and how they are read."""

    source: str
    """A folder, archive or manifest (csv, tsv, parquet), a URL, or a name such as `torchvision:MNIST`."""

    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the archive or manifest, 64 hexadecimal digits; a file with another checksum is rejected."""

    splits: SplitsConfig = SplitsConfig()

    split_seed: int = Field(default=0, ge=0)
    """Seed of fractional splits, independent of `seed`: runs with different seeds have the same splits."""

    group_by: Annotated[str, Field(min_length=1)] | None = None
    """Manifest column, such as `patient`; images with equal values go to the same split and the same fold."""

    exclude: tuple[str, ...] = Field(default=(), strict=False)
    """Files or glob patterns to leave out, relative to the source; each must match at least one file."""

    on_bad_image: Literal["fail", "skip"] = "fail"
    """Handling of files that are not readable images: `fail` reports them, `skip` leaves them out."""

    allow_duplicates: tuple[str, ...] = Field(default=(), strict=False)
    """Files or glob patterns, relative to the source, that may have exact duplicates in another split."""

    few_images: Annotated[int, Field(ge=1)] = 10
    """Number of training images per class below which the preflight reports a warning."""

    image_size: int | None = Field(default=None, ge=16, le=2048)
    """Height and width of the network input in pixels. Unset: the size that its weights were trained with."""

    augmentation: Option[Augmentation] = "none"
    """Random augmentation of the training images."""


class BackboneConfig(Section):
    """The pretrained feature extractor."""

    name: Option[str]
    """A torchvision or timm network, or `efficientnet_lite0`; `platform backbones` lists them all."""

    weights: str = "default"
    """`default`, `none`, the name of published weights, or the path of a safetensors or pth file."""

    freeze_through: Option[str] = "all"
    """Last frozen stage: the name of a backbone stage, `none` or `all`."""


CountOrUnlimited = Annotated[
    Annotated[int, Field(ge=1, le=1000), Tag("count")] | Annotated[Literal["unlimited"], Tag("word")],
    Discriminator(lambda value: "word" if isinstance(value, str) else "count"),
]


class FeaturesConfig(Section):
    """Features from the frozen part of the backbone, computed once and stored."""

    views: CountOrUnlimited = 1
    """Stored augmented views per image, one of which is drawn in each epoch. 1: only the original image."""


class HeadConfig(Section):
    """The new classification head."""

    dropout: Searchable[Probability] = 0.0
    """Dropout probability of the head's input features during training."""


class TrainingConfig(Section):
    """Optimization of a trial."""

    epochs: Searchable[Count] = 10
    """Passes over the training images."""

    batch_size: Searchable[Count] = 32
    """Images per optimizer step."""

    optimizer: Option[Optimizer] = "adamw"
    """AdamW, or SGD with momentum."""

    learning_rate: Searchable[Positive] = 1e-3
    """Peak learning rate of the head."""

    backbone_lr_factor: Searchable[NonNegative] = 0.1
    """Learning rate of the backbone as a multiple of the head's."""

    weight_decay: Searchable[NonNegative] = 0.01
    """Decoupled weight decay (AdamW) or L2 penalty (SGD); biases and normalization layers are exempt."""

    momentum: Searchable[Probability] = 0.9
    """Momentum of SGD; ignored by AdamW."""

    schedule: Option[Schedule] = "cosine"
    """Learning rate schedule after the warm-up."""

    warmup_epochs: Searchable[NonNegative] = 0.0
    """Number of epochs, fractions allowed, over which the learning rate increases linearly from zero."""

    label_smoothing: Searchable[Probability] = 0.0
    """Probability mass of the target that is distributed over all classes."""

    class_weights: Option[Literal["none", "balanced", "auto"]] = "none"
    """`balanced` weights the loss by inverse class frequency; `auto` only above a class ratio of 1.5."""

    sampling: Option[Literal["shuffled", "balanced"]] = "shuffled"
    """Images drawn per epoch: `shuffled` draws each image once, `balanced` equally many of each class."""

    early_stopping: Annotated[int, Field(ge=1)] | None = None
    """Number of epochs without improvement of the search metric after which a trial stops. Unset: never."""

    precision: Precision = "auto"
    """Floating-point format; `auto` times a step in each format of the device and uses the fastest."""

    @model_validator(mode="after")
    def _check_single_balancing(self) -> TrainingConfig:
        if self.sampling == "balanced" and self.class_weights in ("balanced", "auto"):
            message = "sampling: balanced and class_weights correct the same imbalance twice; use only one of them"
            raise ValueError(message)
        return self


class SearchConfig(Section):
    """The Optuna study."""

    trials: Count = 20
    """Total number of trials; raise it and run again to extend the study."""

    metric: SearchMetric = "validation/loss"
    """Metric that ranks the trials, measured at the best epoch of each."""

    pruning: bool = True
    """Stop a trial early if its metric is worse than the median of previous trials at the same epoch."""

    @property
    def minimizes(self) -> bool:
        """True if a smaller metric is better."""
        return self.metric.endswith("/loss")


class GateConfig(Section):
    """Rules that a candidate must pass to become champion; without rules, every candidate passes."""

    accuracy: Threshold | None = Field(default=None, alias="test/accuracy")
    """Fraction of test images classified correctly, 0 to 1."""

    macro_f1: Threshold | None = Field(default=None, alias="test/macro_f1")
    """Mean F1 score over the classes, 0 to 1; every class has the same weight."""

    macro_recall: Threshold | None = Field(default=None, alias="test/macro_recall")
    """Mean recall over the classes (balanced accuracy), 0 to 1."""

    loss: Threshold | None = Field(default=None, alias="test/loss")
    """Mean cross-entropy on the test images, in nats."""

    ece: Threshold | None = Field(default=None, alias="test/ece")
    """Expected calibration error on the test images, 0 to 1."""

    unknown: Threshold | None = Field(default=None, alias="test/unknown")
    """Fraction of test images that the served model marks as unknown, 0 to 1."""

    latency: Threshold | None = Field(default=None, alias="served/latency_ms")
    """Median time in milliseconds to classify one image file in this process, on a CPU."""

    size: Threshold | None = Field(default=None, alias="served/size_mb")
    """Size in megabytes of the served files: weights, reference features and configuration."""

    over_champion: OverChampion | None = None
    """Compare accuracy with the champion on the same test images; passes if there is no champion."""

    per_class_recall: PerClassRecall | None = None
    """Compare recall with the champion class by class; passes if there is no champion."""

    @property
    def rules(self) -> dict[str, Rule]:
        """Rules that are set, by their names in a recipe."""
        values = ((field.alias or name, getattr(self, name)) for name, field in type(self).model_fields.items())
        return {name: rule for name, rule in values if rule is not None}


class PromotionConfig(Section):
    """Registration of the best checkpoint and its promotion to champion."""

    model: Name
    """Name of the registered model."""

    gate: GateConfig = GateConfig()

    false_alarms: Annotated[float, Field(gt=0, lt=1)] = FALSE_ALARM_RATE
    """Fraction of in-distribution images that the served model may classify as unknown."""


class Recipe(Section):
    """All settings of a run."""

    name: Name
    """Name of the study and of the MLflow experiment."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the head's initial weights, the order of images, dropout and the search."""

    dataset: DatasetConfig
    backbone: BackboneConfig
    features: FeaturesConfig = FeaturesConfig()
    head: HeadConfig = HeadConfig()
    training: TrainingConfig = TrainingConfig()

    search: SearchConfig | None = None
    """The Optuna study. Without this section, a run is a single trial."""

    promotion: PromotionConfig | None = None
    """Registration of the best checkpoint and its promotion. Without this section, nothing is registered."""
