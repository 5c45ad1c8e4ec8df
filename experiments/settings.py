"""Typed settings of every command: Hydra's config stops here.

A config is resolved to plain containers and validated by these models, so that a wrong type or value is one clear
line, and nothing below `experiments/` ever sees a `DictConfig`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from experiments.fleet_settings import BouteSettings, DeploymentSpaceSettings
from experiments.lane_settings import LaneSettings
from experiments.rl_settings import PpoLagrangianSettings, ProteusSettings
from experiments.router_settings import RouterSettings, StrategyScorerSettings
from experiments.tracking_settings import TrackingSettings
from experiments.world_settings import WorldSettings
from simulators.errors import ConfigError


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScenarioData(_Settings):
    """Draw the table from the scenario of the `scenario` group."""

    kind: Literal["scenario"]
    n_queries: Annotated[int, Field(ge=10, le=10_000_000)]
    seed: Annotated[int, Field(ge=0)] | None


class RecordedData(_Settings):
    """Read the table from two files."""

    kind: Literal["recorded"]
    queries: str | None
    outcomes: str | None
    tiers: list[str] | Literal["auto"]
    prices: str | None = None
    repeats: str | None = None


DataSettings = Annotated[ScenarioData | RecordedData, Field(discriminator="kind")]


class TextScorerSettings(_Settings):
    """`scorer=text`."""

    kind: Literal["text"]
    ridge_alpha: float
    neighbours: int
    neighbour_weight: float


class LiteLLMScorerSettings(_Settings):
    """`scorer=litellm`."""

    kind: Literal["litellm"]


class ColumnScorerSettings(_Settings):
    """`scorer=column`."""

    kind: Literal["column"]
    column: str | None
    confidence_column: str | None


class ScenarioScorerSettings(_Settings):
    """`scorer=scenario`."""

    kind: Literal["scenario"]


ScorerSettings = Annotated[
    TextScorerSettings | LiteLLMScorerSettings | ColumnScorerSettings | ScenarioScorerSettings | StrategyScorerSettings,
    Field(discriminator="kind"),
]


class PolicySettings(_Settings):
    """Policy family and lanes; tiers by name, None for the documented default."""

    kind: Literal["thresholds", "utility", "target"]
    confidence_floor: Annotated[float, Field(ge=0, le=1)] | None
    fallback_tier: str | None
    low_confidence_tier: str | None
    offset_range: Annotated[float, Field(ge=0, le=1)] = 0.0


class ExactSettings(_Settings):
    """`controller=exact`."""

    kind: Literal["exact"]
    boundaries: Literal["auto", "all"] | Annotated[int, Field(ge=2)]
    max_evaluations: Annotated[int, Field(ge=1)]


class SobolSettings(_Settings):
    """`controller=sobol`."""

    kind: Literal["sobol"]


Initial = Annotated[int, Field(ge=1)] | None


class BaselineSettings(_Settings):
    """Searchers without options of their own."""

    kind: Literal["random", "tpe", "parego", "tutorial"]
    n_initial: Initial


class Nsga2Settings(_Settings):
    """`controller=nsga2`."""

    kind: Literal["nsga2"]
    population: Annotated[int, Field(ge=4)]
    n_initial: Initial


class MoboSettings(_Settings):
    """`controller=mobo`."""

    kind: Literal["mobo"]
    model: Literal["auto", "grey", "gp"]
    acquisition: Literal["auto", "closed", "qlognehvi"]
    fit: Literal["map", "botorch"]
    quality_axis: Literal["linear", "logit"]
    q: Annotated[int, Field(ge=1)]
    n_initial: Initial


ControllerSettings = Annotated[
    ExactSettings
    | SobolSettings
    | BaselineSettings
    | Nsga2Settings
    | MoboSettings
    | BouteSettings
    | ProteusSettings
    | PpoLagrangianSettings,
    Field(discriminator="kind"),
]


class PolicySpace(_Settings):
    """`space=policy`: the policy's own parameters."""

    kind: Literal["policy"]


class ConfidenceSpace(_Settings):
    """`space=confidence`: thresholds, confidence floor, tier below it."""

    kind: Literal["confidence"]
    confidence_floor: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]]


class EligibilitySpace(_Settings):
    """`space=eligibility`: thresholds, and the threshold of the eligibility lane."""

    kind: Literal["eligibility"]
    eligibility_threshold: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]]


class SliceSpace(_Settings):
    """`space=slice_thresholds`: thresholds per slice."""

    kind: Literal["slice_thresholds"]
    slices: list[str]


class DimensionSettings(_Settings):
    """Bounds of one searched parameter."""

    kind: Literal["float", "integer"] = "float"
    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"


class LiteLLMSpace(_Settings):
    """`space=litellm`: LiteLLM's weights, token thresholds, override and boundaries."""

    kind: Literal["litellm"]
    parameters: dict[str, DimensionSettings]


SpaceSettings = Annotated[
    PolicySpace | ConfidenceSpace | EligibilitySpace | SliceSpace | LiteLLMSpace | DeploymentSpaceSettings,
    Field(discriminator="kind"),
]


class AxesSettings(_Settings):
    """Axes of hypervolume."""

    margin: Annotated[float, Field(ge=0, le=10)]
    bounds: dict[str, list[float]] | None


class SplitSettings(_Settings):
    """Shares of the distinct prompts."""

    tune: Annotated[float, Field(gt=0, lt=1)]
    validate_: Annotated[float, Field(gt=0, lt=1, alias="validate")]


class SliceSettings(_Settings):
    """Coverage of slices."""

    minimum: Annotated[int, Field(ge=2)]


Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]


class TuneSettings(_Settings):
    """`routefront tune`."""

    data: DataSettings
    scenario: dict[str, Any] | None
    scorer: ScorerSettings
    router: RouterSettings = RouterSettings()
    policy: PolicySettings
    lane: LaneSettings
    space: SpaceSettings
    world: WorldSettings
    controller: ControllerSettings
    axes: AxesSettings
    tracking: TrackingSettings
    budget: Annotated[int, Field(ge=1)]
    seed: Seed
    objectives: Annotated[list[str], Field(min_length=1)]
    constraints: dict[str, Any]
    choose: str
    alpha: Annotated[float, Field(gt=0, lt=0.5)]
    margin: Annotated[float, Field(ge=1e-4, le=1)]
    power: Annotated[float, Field(ge=0.5, lt=1)]
    split: SplitSettings
    slices: SliceSettings
    folds: Annotated[int, Field(ge=2, le=50)]
    gain_margin: Annotated[float, Field(ge=0, lt=1)] = 0.05
    calibration: Literal["none", "platt", "isotonic"] = "none"
    out: str | None


class StudySettings(TuneSettings):
    """`routefront study`: tune and validate on many seeded splits."""

    splits: Annotated[int, Field(ge=2)]
    floors: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)]
    output: str | None


class DiagnoseSettings(TuneSettings):
    """`routefront diagnose`: is the score any good?"""

    output: str | None


class EvaluateSettings(_Settings):
    """`routefront evaluate`."""

    run: str | None
    data: DataSettings
    scenario: dict[str, Any] | None
    seed: Seed
    slices: SliceSettings
    output: str | None


class CertifySettings(_Settings):
    """`routefront certify`."""

    run: str | None
    data: DataSettings
    scenario: dict[str, Any] | None
    baseline: str | None
    baseline_models: dict[str, str] | None
    margin: Annotated[float, Field(ge=1e-4, le=1)] | None
    alpha: Annotated[float, Field(gt=0, lt=0.5)]
    power: Annotated[float, Field(ge=0.5, lt=1)]
    most_unjudged: Annotated[float, Field(ge=0, le=1)] = 1.0
    seed: Seed
    slices: SliceSettings
    output: str | None


class PowerSettings(CertifySettings):
    """`routefront power`."""


class AtSettings(_Settings):
    """Which point of the run's front to route with; None for the chosen one."""

    quality: Annotated[float, Field(ge=0, le=1)] | None


class RouteSettings(_Settings):
    """`routefront route`."""

    run: str | None
    queries: str | None
    at: AtSettings
    output: str | None


class ExportSettings(_Settings):
    """`routefront export`."""

    run: str | None
    target: str | None
    models: dict[str, str] | None
    router_name: str
    diff: str | None
    force: bool
    hosts: dict[str, str] | None = None
    output: str | None


class VerifySettings(_Settings):
    """`routefront verify`."""

    run: str | None
    target: str | None
    queries: str | None
    config: str | None
    models: dict[str, str] | None
    router_name: str
    output: str | None


class BenchSettings(_Settings):
    """`routefront bench`."""

    cases: list[str]
    runs: Annotated[int, Field(ge=1)]
    seed: Seed
    output: str | None


_KINDS = {"scenario", "recorded", "text", "litellm", "column", "thresholds", "utility", "none", "wandb"}
_KINDS |= {"queue", "traffic", "auto"}
_KINDS |= {"exact", "sobol", "random", "nsga2", "tpe", "parego", "tutorial", "mobo", "proteus"}
_KINDS |= {"ppo_lagrangian", "target"}
_KINDS |= {"deployment", "boute"}
_KINDS |= {"policy", "confidence", "slice_thresholds", "eligibility", "both", "strategy"}

Model = TypeVar("Model", bound=BaseModel)


def parse_settings(model: type[Model], raw: dict[str, Any]) -> Model:
    """Validate a resolved config.

    Raises:
        ConfigError: One line that names the option, what was expected and what came.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        kinds = _KINDS
        path = [str(p) for i, p in enumerate(first["loc"]) if i == 0 or str(p) not in kinds]
        raise ConfigError(
            f"{'.'.join(path)}: {first['msg'].removeprefix('Value error, ')}; got {first['input']!r}"
        ) from error
