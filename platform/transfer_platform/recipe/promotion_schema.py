"""Schema of the recipe section `promotion`, with the rules of the gate."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from transfer_platform.recipe.search_space import Section
from transfer_registry.rules import OverChampion, PerClassRecall, Rule, Threshold

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]

FALSE_ALARM_RATE = 0.05
"""Default for `promotion.false_alarms`, also used for recipes without a `promotion` section."""


class GateConfig(Section):
    """Rules that a candidate must satisfy to become the champion. If no rules are set, every candidate passes."""

    accuracy: Threshold | None = Field(default=None, alias="test/accuracy")
    """Fraction of correctly classified test images, 0 to 1."""

    macro_f1: Threshold | None = Field(default=None, alias="test/macro_f1")
    """Macro-averaged F1 score, 0 to 1 (all classes weighted equally)."""

    macro_recall: Threshold | None = Field(default=None, alias="test/macro_recall")
    """Macro-averaged recall (balanced accuracy), 0 to 1."""

    loss: Threshold | None = Field(default=None, alias="test/loss")
    """Mean cross-entropy on the test images, in nats."""

    ece: Threshold | None = Field(default=None, alias="test/ece")
    """Expected calibration error on the test images, 0 to 1."""

    unknown: Threshold | None = Field(default=None, alias="test/unknown")
    """Fraction of test images flagged as unknown by the served model, 0 to 1."""

    latency: Threshold | None = Field(default=None, alias="served/latency_ms")
    """Median time to classify one image file, in milliseconds, measured on the CPU in the current process."""

    size: Threshold | None = Field(default=None, alias="served/size_mb")
    """Total size of the served files (weights, reference features and configuration), in megabytes."""

    over_champion: OverChampion | None = None
    """Compares the candidate's accuracy with the champion's on the same test images; passes if there is no champion."""

    per_class_recall: PerClassRecall | None = None
    """Compares the candidate's per-class recall with the champion's; passes if there is no champion."""

    @property
    def rules(self) -> dict[str, Rule]:
        """Configured rules, keyed by their names in the recipe."""
        values = ((field.alias or name, getattr(self, name)) for name, field in type(self).model_fields.items())
        return {name: rule for name, rule in values if rule is not None}


class PromotionConfig(Section):
    """Registration of the best checkpoint and its promotion to champion."""

    model: Name
    """Name of the registered model."""

    gate: GateConfig = GateConfig()

    false_alarms: Annotated[float, Field(gt=0, lt=1)] = FALSE_ALARM_RATE
    """Highest acceptable fraction of in-distribution images that the served model flags as unknown."""
