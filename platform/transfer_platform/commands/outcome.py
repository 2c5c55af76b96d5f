"""Result of `platform run`, and the text that describes it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safetensors.torch import load_file

from transfer_model.model_json import WEIGHTS_FILE, ModelConfig
from transfer_model.network import Network, build_network
from transfer_platform.search.study import Study
from transfer_registry.promote import PromotionResult
from transfer_registry.verdict import Verdict


@dataclass(frozen=True)
class Outcome:
    """Result of a run.

    Attributes:
        study: Study with the values and states of all trials.
        metric: Metric that ranks the trials.
        metrics: Metrics of the served model, such as `test/accuracy`, `served/latency_ms` and `served/size_mb`.
        promotion: Result of the gate; None if the recipe has no `promotion:`.
        run_id: MLflow run of the study.
        model_folder: Folder with the best trial's weights and `model.json`.
        champion: Current champion version of the registered model; None if there is none.
    """

    study: Study
    metric: str
    metrics: dict[str, float]
    promotion: PromotionResult | None
    run_id: str
    model_folder: Path
    champion: int | None = None

    @cached_property
    def network(self) -> Network:
        """Network of the best trial at its best epoch, on the CPU and in eval mode; loaded on first use."""
        network = build_network(ModelConfig.read(self.model_folder).network)
        network.load_state_dict(load_file(self.model_folder / WEIGHTS_FILE))
        return network.eval()

    @property
    def verdict(self) -> Verdict | None:
        """The gate's verdict, including the result of each rule."""
        return self.promotion.verdict if self.promotion else None

    def __str__(self) -> str:
        best = self.study.best
        values = [
            f"  {field} = {value:.4g}" if isinstance(value, float) else f"  {field} = {value}"
            for field, value in best.params.items()
        ]
        test = {name: value for name, value in self.metrics.items() if name.startswith("test/")}
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in test.items())
        return "\n".join(
            [f"best: trial {best.number}, {self.metric} {best.score}", *values, metrics, *self._promotion_lines()]
        )

    def _promotion_lines(self) -> list[str]:
        if self.promotion is None:
            return ["not registered: the recipe has no `promotion:` block"]
        name, version = self.promotion.model, self.promotion.version
        commands = f"  platform serve {name}   platform ui" if self.champion else "  platform ui"
        return [str(self.promotion.verdict), f"{name} version {version} {self._status()}", commands]

    def _status(self) -> str:
        """Returns the version's current status, taking into account any alias changes since the verdict."""
        assert self.promotion is not None
        if self.champion == self.promotion.version:
            return "is champion"
        current = f"the champion is now version {self.champion}" if self.champion else "there is now no champion"
        if self.promotion.promoted:
            return f"was made champion; {current}"
        return "is registered, but did not become champion"
