"""What may stand in a recipe: every field, its unit, its bounds and its default, once.

Frozen pydantic models, read by `recipe.file`. A field declared `Searchable` or `Option` may hold a range
until `recipe.space.resolve` has put a trial's value in its place; everything behind the search sees values.
Anybody may import this module; it imports nothing heavy.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from transfer_platform.recipe.search_space import Option, Searchable
from transfer_registry.rules import OverChampion, PerClassRecall, Rule, Threshold

Augmentation = Literal["none", "light", "medium", "trivial", "rand"]
Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["constant", "cosine", "one_cycle", "plateau"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
SearchMetric = Literal[
    "validation/loss", "validation/accuracy", "validation/macro_f1", "validation/macro_recall"
]
Direction = Literal["minimize", "maximize"]

Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]

EMBEDDED_DATASETS = ("digits",)
"""Data sets that come with the install; a recipe names one as `embedded:NAME`."""

HOLDOUT_FRACTION = 0.2
"""Fraction of train for `dataset.splits.validation` and `.test` where nothing is there for it."""

IMBALANCE_RATIO = 1.5
"""`class_weights: auto` weighs above this: images of the largest class by those of the smallest."""

FALSE_ALARM_RATE = 0.05
"""Default of `promotion.false_alarms`; a recipe without `promotion:` is tested with it too."""

FolderOrFraction = Annotated[
    Annotated[Fraction, Tag("fraction")] | Annotated[str, Tag("folder")],
    Discriminator(lambda value: "folder" if isinstance(value, str) else "fraction"),
]


def _kind_of_validation(value: object) -> str:
    if isinstance(value, dict | BaseModel):
        return "cross_validation"
    return "folder" if isinstance(value, str) else "fraction"


class Section(BaseModel):
    """What all parts of a recipe have in common: immutable, and no field that is not declared."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class FoldsConfig(Section):
    """Cross-validation: every training image is held out once."""

    folds: Annotated[int, Field(ge=2, le=20)]
    """Into how many parts the training images are dealt; each is held out from one of as many networks."""


FolderFractionOrFolds = Annotated[
    Annotated[Fraction, Tag("fraction")]
    | Annotated[str, Tag("folder")]
    | Annotated[FoldsConfig, Tag("cross_validation")],
    Discriminator(_kind_of_validation),
]


class SplitsConfig(Section):
    """Which images teach, choose, and judge; what is unset is recognised by the names of folders."""

    train: str | None = None
    """Folder of class folders, relative to the source; "." is the source itself; unset: recognised."""

    validation: FolderFractionOrFolds | None = None
    """Ranks the trials: a fraction held out of train, a folder, or `{folds: 5}`; unset: recognised or 0.2."""

    test: FolderOrFraction | None = None
    """Read by the gate alone: a folder, or a fraction held out of train; unset: recognised or 0.2."""


class DatasetConfig(Section):
    """Where the photographs are and how they are read."""

    source: str
    """A folder, archive or manifest (csv, tsv, parquet), a URL, or a name such as `torchvision:MNIST`."""

    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Checksum of the archive or manifest, 64 hexadecimal digits; a file that differs is refused."""

    splits: SplitsConfig = SplitsConfig()
    """Which images teach, which choose, and which judge."""

    split_seed: int = Field(default=0, ge=0)
    """Chooses the images of fractional splits; apart from `seed`: seeds compare on the same images."""

    group_by: Annotated[str, Field(min_length=1)] | None = None
    """Column of a manifest, such as `patient`: images of one value stay on one side and in one fold."""

    exclude: tuple[str, ...] = Field(default=(), strict=False)
    """Files or patterns, relative to the source, that are meant to be left out; each must match something."""

    on_bad_image: Literal["fail", "skip"] = "fail"
    """What becomes of files that are no readable images: `fail` names them all, `skip` leaves them out."""

    allow_duplicates: tuple[str, ...] = Field(default=(), strict=False)
    """Files or patterns, relative to the source, that may lie in two splits byte for byte."""

    few_images: Annotated[int, Field(ge=1)] = 10
    """Training images of a class below which the preflight warns."""

    image_size: int | None = Field(default=None, ge=16, le=2048)
    """Side of the square that the network sees, in pixels; by default what its weights were trained with."""

    augmentation: Option[Augmentation] = "none"
    """How training images are varied from epoch to epoch."""


class BackboneConfig(Section):
    """The pretrained feature extractor."""

    name: Option[str]
    """A network of torchvision or timm, or `efficientnet_lite0`; `platform backbones` lists them."""

    weights: str = "default"
    """`default`, `none`, one of the network's weights by name, or a safetensors or pth file."""

    freeze_through: Option[str] = "all"
    """Last stage that stays as it was pretrained: a stage of the backbone, `none` or `all`."""


CountOrUnlimited = Annotated[
    Annotated[int, Field(ge=1, le=1000), Tag("count")] | Annotated[Literal["unlimited"], Tag("word")],
    Discriminator(lambda value: "word" if isinstance(value, str) else "count"),
]


class FeaturesConfig(Section):
    """What the frozen part of the backbone makes of the images; computed once and kept."""

    views: CountOrUnlimited = 1
    """Augmented views of an image that are kept, one of them drawn in each epoch; 1: the image as it is."""


class HeadConfig(Section):
    """The new classifier."""

    dropout: Searchable[Probability] = 0.0
    """Share of the features that are dropped while the head learns, 0 to 1."""


class TrainingConfig(Section):
    """How a trial is fitted."""

    epochs: Searchable[Count] = 10
    """Passes over the training images."""

    batch_size: Searchable[Count] = 32
    """Images per optimizer step."""

    optimizer: Option[Optimizer] = "adamw"
    """AdamW, or SGD with momentum."""

    learning_rate: Searchable[Positive] = 1e-3
    """Peak learning rate of the head."""

    backbone_lr_factor: Searchable[NotNegative] = 0.1
    """The backbone's learning rate as a multiple of the head's."""

    weight_decay: Searchable[NotNegative] = 0.01
    """Decoupled (AdamW) or L2 (SGD) decay; biases and normalisation are exempt."""

    momentum: Searchable[Probability] = 0.9
    """Momentum of SGD; AdamW does not use it."""

    schedule: Option[Schedule] = "cosine"
    """How the learning rate falls after the warm-up."""

    warmup_epochs: Searchable[NotNegative] = 0.0
    """Epochs (fractions allowed) over which the learning rate rises linearly from zero."""

    label_smoothing: Searchable[Probability] = 0.0
    """Share of the target's probability that is spread over all classes."""

    class_weights: Option[Literal["none", "balanced", "auto"]] = "none"
    """`balanced` weighs the loss of each class by the inverse of its frequency; `auto` above 1.5 to 1."""

    sampling: Option[Literal["shuffled", "balanced"]] = "shuffled"
    """What an epoch draws: every image once, or, `balanced`, of every class the same number of images."""

    early_stopping: Annotated[int, Field(ge=1)] | None = None
    """Epochs without an improvement of the search metric after which a trial ends; unset, it never does."""

    precision: Precision = "auto"
    """Arithmetic of the network; `auto` times a step in each that the device has and takes the fastest."""

    @model_validator(mode="after")
    def _balanced_once(self) -> TrainingConfig:
        if self.sampling == "balanced" and self.class_weights in ("balanced", "auto"):
            raise ValueError(
                "sampling: balanced and class_weights make up for the same imbalance twice; keep one of them"
            )
        return self


class SearchConfig(Section):
    """The Optuna study."""

    trials: Count = 20
    """How many trials the study has in all; raising it later extends the study."""

    metric: SearchMetric = "validation/loss"
    """What ranks the trials, measured at each trial's best epoch."""

    direction: Direction | None = None
    """`minimize` or `maximize`; by default what the metric asks for."""

    pruning: bool = True
    """End trials early whose metric is worse than the median of the earlier ones at the same epoch."""

    @property
    def minimizes(self) -> bool:
        """Whether a smaller metric is better."""
        return self.direction == "minimize" if self.direction else self.metric.endswith("/loss")

    @model_validator(mode="after")
    def _direction_fits_metric(self) -> SearchConfig:
        natural = "minimize" if self.metric.endswith("/loss") else "maximize"
        if self.direction not in (None, natural):
            raise ValueError(f"{self.metric} is to {natural}, but direction is {self.direction}")
        return self


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
        values = (
            (field.alias or name, getattr(self, name)) for name, field in type(self).model_fields.items()
        )
        return {name: rule for name, rule in values if rule is not None}


class PromotionConfig(Section):
    """Under which name the best checkpoint is registered, and what it must pass to become champion."""

    model: Name
    """Name of the registered model."""

    gate: GateConfig = GateConfig()
    """The rules."""

    false_alarms: Annotated[float, Field(gt=0, lt=1)] = FALSE_ALARM_RATE
    """Share of images like the training images that the served model may call unknown."""


class Recipe(Section):
    """Everything that a run depends on."""

    name: Name
    """Names the study and, in MLflow, the experiment."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seeds the head's initial weights, the order of the images, dropout, and the search."""

    dataset: DatasetConfig
    """Where the photographs are and how they are read."""

    backbone: BackboneConfig
    """The pretrained feature extractor."""

    features: FeaturesConfig = FeaturesConfig()
    """What the frozen part of the backbone makes of the images; computed once and kept."""

    head: HeadConfig = HeadConfig()
    """The new classifier."""

    training: TrainingConfig = TrainingConfig()
    """How a trial is fitted."""

    search: SearchConfig | None = None
    """The Optuna study; without it the recipe is a single trial."""

    promotion: PromotionConfig | None = None
    """Register the best checkpoint and offer it to the gate; without it nothing is registered."""
