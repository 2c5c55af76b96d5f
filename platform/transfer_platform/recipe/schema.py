"""Recipe schema: all fields with their types, units, bounds and defaults.

A `Searchable` or `Option` field may hold a range until `recipe.resolve` replaces the range with a trial's value.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag, field_validator, model_validator

from transfer_model.architecture import Architecture, Options
from transfer_model.errors import ModelError
from transfer_platform.recipe.promotion_schema import Name, PromotionConfig
from transfer_platform.recipe.search_schema import SearchConfig
from transfer_platform.recipe.search_space import (
    Choice,
    Count,
    Fraction,
    NonNegative,
    Option,
    Positive,
    Probability,
    Searchable,
    Section,
)

Augmentation = Literal["none", "light", "medium", "trivial", "rand"]
Optimizer = Literal["adamw", "adam", "sgd"]
Schedule = Literal["constant", "cosine", "one_cycle", "plateau"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
SolvedKind = Literal["logistic", "ridge", "lda", "prototype"]
HeadKind = Literal["linear", "logistic", "ridge", "lda", "prototype", "knn"]

EMBEDDED_DATASETS = ("digits",)
"""Built-in datasets, selected by `dataset.source: embedded:NAME`."""

HOLDOUT_FRACTION = 0.2
"""Fraction of train used for the validation or test split if that split is neither set nor detected."""

IMBALANCE_RATIO = 1.5
"""`class_weights: auto` balances the loss if a class is more than this many times as large as another."""

FolderOrFraction = Annotated[
    Annotated[Fraction, Tag("fraction")] | Annotated[str, Tag("folder")],
    Discriminator(lambda value: "folder" if isinstance(value, str) else "fraction"),
]


def _validation_tag(value: object) -> str:
    if isinstance(value, dict | BaseModel):
        return "cross_validation"
    return "folder" if isinstance(value, str) else "fraction"


class FoldsConfig(Section):
    """Cross-validation: every training image is held out exactly once."""

    folds: Annotated[int, Field(ge=2, le=20)]
    """Number of folds; for each fold, one network is trained on the other folds and validated on that fold."""


FolderFractionOrFolds = Annotated[
    Annotated[Fraction, Tag("fraction")]
    | Annotated[str, Tag("folder")]
    | Annotated[FoldsConfig, Tag("cross_validation")],
    Discriminator(_validation_tag),
]


class SplitsConfig(Section):
    """Training, validation and test images; unset splits are detected from folder names."""

    train: str | None = None
    """Folder with one subfolder per class, relative to the source ("." for the source itself). Detected if unset."""

    validation: FolderFractionOrFolds | None = None
    """Images for ranking trials: a folder, fraction of train or `{folds: 5}`. Default: the detected split, else 0.2."""

    test: FolderOrFraction | None = None
    """Images for evaluation and the gate: a folder or a fraction of train. Default: the detected split, else 0.2."""


class IntensityRange(Section):
    """Range of gray values, from black to white."""

    low: float
    """This gray value and all smaller values become black."""

    high: float
    """This gray value and all larger values become white."""

    @model_validator(mode="after")
    def _check_order(self) -> IntensityRange:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, but got low={self.low:g} and high={self.high:g}")
        return self


IntensitySetting = Annotated[
    Annotated[Literal["auto", "8bit", "full"], Tag("word")] | Annotated[IntensityRange, Tag("gray_values")],
    Discriminator(lambda value: "gray_values" if isinstance(value, dict | BaseModel) else "word"),
]


class DatasetConfig(Section):
    """Where the images are located, and how they are read and split."""

    source: str
    """A folder, archive, manifest (CSV, TSV, JSONL, Parquet) or URL, or a dataset name such as `torchvision:MNIST`."""

    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the archive or manifest (64 lowercase hexadecimal digits). A file with another hash is rejected."""

    splits: SplitsConfig = SplitsConfig()

    split_seed: int = Field(default=0, ge=0)
    """Seed for fractional splits, independent of `seed`, so that runs with different seeds use the same splits."""

    group_by: Annotated[str, Field(min_length=1)] | None = None
    """Manifest column to group by, such as `patient`; images with the same value stay in the same split and fold."""

    group_near_duplicates: bool = True
    """Keeps near duplicates, such as resized copies, in the same split and fold if images are divided automatically."""

    exclude: tuple[str, ...] = Field(default=(), strict=False)
    """Files or glob patterns to exclude, relative to the source; each must match at least one file."""

    on_bad_image: Literal["fail", "skip"] = "fail"
    """Handling of files that are not readable images: `fail` reports them as errors, and `skip` excludes them."""

    allow_duplicates: tuple[str, ...] = Field(default=(), strict=False)
    """Files allowed to have exact duplicates in another split: paths or glob patterns, relative to the source."""

    few_images: Annotated[int, Field(ge=1)] = 10
    """Minimum number of training images per class; the preflight warns about classes with fewer."""

    image_size: int | None = Field(default=None, ge=16, le=2048)
    """Height and width of the network input in pixels. Defaults to the size used to train the weights."""

    intensity: IntensitySetting = "auto"
    """Gray value range for images with more than 8 bits: `auto` (from train), `8bit` (0-255) or `full` (0-65535)."""

    augmentation: Option[Augmentation] = "none"
    """Random augmentation applied to training images."""


class BackboneConfig(Section):
    """The pretrained feature extractor."""

    name: Option[str]
    """A torchvision or timm network, or `efficientnet_lite0` to `_lite2`; `platform backbones` lists all names."""

    # pydantic 2.10 does not write this keyword.
    options: dict[str, Any] = Field(default={}, json_schema_extra={"additionalProperties": True})
    """Network-specific options, such as `{depth: 18}` for `resnet`."""

    weights: str = "default"
    """`default`, `none`, the name of published weights, or the path to a safetensors or pth file."""

    freeze_through: Option[str] = "all"
    """Last stage to freeze (all stages before it are also frozen), or `none` or `all`."""

    @field_validator("options")
    @classmethod
    def _check_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        try:
            return dict(Options(options))
        except ModelError as error:
            raise ValueError(str(error)) from error

    @property
    def architecture(self) -> Architecture:
        """Architecture of the network; the section must not contain search ranges."""
        return Architecture(self.name, Options(self.options))

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        """Architectures of all networks that the recipe searches over."""
        names = self.name.choices if isinstance(self.name, Choice) else (self.name,)
        return tuple(Architecture(name, Options(self.options)) for name in names)


CountOrUnlimited = Annotated[
    Annotated[int, Field(ge=1, le=1000), Tag("count")] | Annotated[Literal["unlimited"], Tag("word")],
    Discriminator(lambda value: "word" if isinstance(value, str) else "count"),
]


class FeaturesConfig(Section):
    """Settings for the stored features, which the frozen part of the backbone computes once."""

    views: CountOrUnlimited = 1
    """Number of augmented views stored per image; each epoch uses one of them. With 1, only the original is stored."""


LabelNames = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class HeadConfig(Section):
    """The new classification head, which classifies the features of the backbone."""

    kind: Option[HeadKind] = "linear"
    """`linear` is trained by gradient descent; all other kinds are solved on the features of a frozen backbone."""

    dropout: Searchable[Probability] = 0.0
    """Dropout probability applied to the head's input features during training."""

    label_map: dict[str, LabelNames] | None = None
    """Initial head: labels of the pretrained weights for each class, such as `{ants: [ant]}`. Random if unset."""


class PlateauConfig(Section):
    """Settings for `schedule: plateau`, which reduces the learning rate when the validation loss stops decreasing."""

    factor: Searchable[Fraction] = 0.3
    """Factor by which the learning rate is multiplied."""

    patience: Searchable[Annotated[int, Field(ge=0)]] = 2
    """Number of epochs for which the validation loss may fail to decrease before the learning rate is reduced."""


class PhaseConfig(Section):
    """A phase of a trial before the final one. It starts from the weights that the previous phase ends with."""

    freeze_through: str = "all"
    """Last stage to freeze, or `none` or `all`; each phase must freeze at least as much as the next one."""

    head: SolvedKind | Literal["linear"] = "linear"
    """`linear` trains the head; a solved kind computes it from the features, which requires `freeze_through: all`."""

    epochs: Count | None = None
    """Passes over the training images; no effect if the head is solved. Default: `training.epochs`."""

    learning_rate: Positive | None = None
    """Peak learning rate of the head. Default: `training.learning_rate`."""

    backbone_lr_factor: NonNegative | None = None
    """Backbone learning rate as a multiple of the head's. Default: `training.backbone_lr_factor`."""


class TrainingConfig(Section):
    """Training hyperparameters for a trial."""

    initial_phases: tuple[PhaseConfig, ...] = Field(default=(), strict=False)
    """Phases before the final one, such as `[{head: logistic}]` to train a solved head together with the backbone."""

    epochs: Searchable[Annotated[int, Field(ge=0)]] = 10
    """Passes over the training images. With 0, the network is evaluated as it is."""

    batch_size: Searchable[Count] = 32
    """Images per optimizer step."""

    optimizer: Option[Optimizer] = "adamw"
    """Optimizer: AdamW, Adam, or SGD with momentum."""

    learning_rate: Searchable[Positive] = 1e-3
    """Peak learning rate of the head."""

    backbone_lr_factor: Searchable[NonNegative] = 0.1
    """Backbone learning rate as a multiple of the head's learning rate."""

    weight_decay: Searchable[NonNegative] = 0.01
    """Decoupled weight decay (AdamW) or L2 penalty (Adam, SGD); biases and normalization layers are exempt."""

    momentum: Searchable[Probability] = 0.9
    """SGD momentum; ignored by AdamW and Adam."""

    schedule: Option[Schedule] = "cosine"
    """Learning rate schedule after the warm-up."""

    plateau: PlateauConfig = PlateauConfig()

    warmup_epochs: Searchable[NonNegative] = 0.0
    """Number of epochs (may be fractional) over which the learning rate increases linearly from zero."""

    label_smoothing: Searchable[Probability] = 0.0
    """Fraction of the target probability distributed uniformly over all classes."""

    class_weights: Option[Literal["none", "balanced", "auto"]] = "none"
    """`balanced` weights the loss by inverse class size; `auto` only if sizes differ by a factor of more than 1.5."""

    sampling: Option[Literal["shuffled", "balanced"]] = "shuffled"
    """Sampling per epoch: `shuffled` draws each image once, and `balanced` draws the same number from each class."""

    early_stopping: Annotated[int, Field(ge=1)] | None = None
    """Stops a trial after this many epochs with no improvement in the search metric. Disabled if unset."""

    precision: Precision = "auto"
    """Floating-point format; `auto` uses float32 unless another format is at least 1.3 times as fast on the device."""

    @model_validator(mode="after")
    def _check_single_balancing(self) -> TrainingConfig:
        if self.sampling == "balanced" and self.class_weights in ("balanced", "auto"):
            message = "sampling: balanced and class_weights would correct the same imbalance twice; use only one"
            raise ValueError(message)
        return self


class EvaluationConfig(Section):
    """Evaluation of the best trial on the test images."""

    crops: Literal[1, 10] = 1
    """If 10, also logs accuracy and loss averaged over 10 crops: the four corners, the center and their reflections."""


Changes = Annotated[dict[str, Any], Field(json_schema_extra={"additionalProperties": True})]


class Recipe(Section):
    """All settings for a run."""

    name: Name
    """Name of the study and of the MLflow experiment."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed for head initialization, image order, dropout and the search."""

    dataset: DatasetConfig
    backbone: BackboneConfig
    features: FeaturesConfig = FeaturesConfig()
    head: HeadConfig = HeadConfig()
    training: TrainingConfig = TrainingConfig()

    evaluation: EvaluationConfig = EvaluationConfig()

    search: SearchConfig | None = None
    """Settings for the Optuna study. If unset, a run consists of a single trial."""

    promotion: PromotionConfig | None = None
    """Registration and promotion of the best checkpoint. If unset, nothing is registered."""

    variants: Annotated[dict[Name, Changes], Field(min_length=1)] | None = None
    """Named changes to this recipe. `platform run` runs each variant as a study of its own and compares them."""
