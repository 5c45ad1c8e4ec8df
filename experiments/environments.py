"""What the registered environment ids make: a scenario by name, or a recording, as a Gymnasium environment.

`gymnasium.make("simulators.envs:QueryRouting-v0", scenario="peak_hours")` calls `make_query_routing`; `make_vec` the
`..._vector` factories.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from experiments.scenario_file import read_scenario_file
from simulators.errors import ConfigError, InputDataError, MissingDependencyError
from simulators.outcomes import FloatArray, OutcomeTable, QueryBatch
from simulators.scenario import parse_scenario, sample_scenario, traffic_of
from simulators.seeds import spawn_rng

if TYPE_CHECKING:
    from simulators.envs.query_routing import QueryRoutingEnv
    from simulators.envs.query_routing_vector import QueryRoutingVectorEnv
    from simulators.envs.routing_task import RoutingTask
    from simulators.envs.threshold_tuning import ThresholdTuningEnv, ThresholdTuningVectorEnv
    from simulators.envs.tuning_episode import Limit, TuningSpec
    from simulators.scenario_spec import ScenarioSpec
    from simulators.traffic import TrafficSpec

Scenario = str | Path | Mapping[str, object]
_SCORE = "difficulty_score"


def make_query_routing(
    scenario: Scenario = "hybrid_api", *, multipliers: Any = None, **options: Any
) -> QueryRoutingEnv:
    """`QueryRouting-v0`.

    Args:
        scenario: Name of a shipped scenario, a YAML file, or the mapping itself; unused where a table is given.
        multipliers: See `QueryRoutingEnv`.
        options: Those of `routing_task` and of `QueryRoutingEnv`.
    """
    require_gymnasium()
    from simulators.envs.query_routing import QueryRoutingEnv

    task, rules = _task_and_rules(scenario, options)
    return QueryRoutingEnv(task, multipliers=multipliers, **rules)


def make_query_routing_vector(
    scenario: Scenario = "hybrid_api", *, num_envs: int = 1, multipliers: Any = None, **options: Any
) -> QueryRoutingVectorEnv:
    """`QueryRouting-v0` for `num_envs` environments at once, on one table; arguments as of `make_query_routing`."""
    require_gymnasium()
    from simulators.envs.query_routing_vector import QueryRoutingVectorEnv

    task, rules = _task_and_rules(scenario, options)
    return QueryRoutingVectorEnv(task, num_envs, multipliers=multipliers, **rules)


_RULES = ("action", "alpha", "lagrangian", "gamma", "boosts", "episode_length")


def _task_and_rules(scenario: Scenario, options: dict[str, Any]) -> tuple[RoutingTask, dict[str, Any]]:
    rules = {name: options.pop(name) for name in _RULES if name in options}
    task = options.pop("task", None)
    if task is not None and options:
        raise ConfigError(f"task= holds features, answers and constraints already; leave out {sorted(options)}")
    return task or routing_task(scenario, **options), rules


def routing_task(
    scenario: Scenario = "hybrid_api",
    *,
    n_queries: int = 2_000,
    seed: int = 0,
    table: OutcomeTable | None = None,
    features: ArrayLike | None = None,
    predicted_quality: ArrayLike | None = None,
    predicted_cost_usd: ArrayLike | None = None,
    targets: tuple[float, float] | None = None,
    constraints: Mapping[str, float] | None = None,
    cost_scale_usd: float | None = None,
) -> RoutingTask:
    """The task of a scenario or of a table.

    Args:
        scenario: As of `make_query_routing`.
        n_queries: Size of the sample; unused where a table is given.
        seed: Of the sample and of the folds of the predictions.
        table: Recorded or sampled answers.
        features: `N x F`; None: the table's signals, standardised.
        predicted_quality, predicted_cost_usd: `N x K`; None: out-of-fold from a scenario's difficulty score.
        targets, constraints: See `make_task`.
        cost_scale_usd: One unit of scaled cost; None: as controller=proteus prices it, so that mu = 0 means the
            cheapest tier for practically every query (where nothing is predicted: the dearest tier's mean cost).

    Raises:
        InputDataError: If the table has no signals and no features are given.
    """
    require_gymnasium()
    from simulators.envs.routing_task import make_task
    from toolkit.search.proteus import price_scale

    if table is None:
        table = sample_scenario(read_scenario(scenario), n_queries=n_queries, rng=spawn_rng(seed, "scenario"))
    predicted = predicted_quality is not None or predicted_cost_usd is not None
    if not predicted and table.has_cost and _SCORE in table.queries.signals:
        predicted_quality, predicted_cost_usd = binned_predictions(table, seed=seed)
    if cost_scale_usd is None and predicted_quality is not None and predicted_cost_usd is not None:
        cost_scale_usd = 1.0 / price_scale(np.asarray(predicted_quality), np.asarray(predicted_cost_usd))
    return make_task(
        table,
        signal_features(table.queries) if features is None else features,
        predicted_quality=predicted_quality,
        predicted_cost_usd=predicted_cost_usd,
        targets=targets,
        constraints=constraints,
        cost_scale_usd=cost_scale_usd,
    )


def recorded_task(
    queries: Path, outcomes: Path, *, prices: Path | None = None, components: int = 32, seed: int = 0, **options: Any
) -> RoutingTask:
    """The task of a recording with prompts: TF-IDF features, and the text scorer's out-of-fold predictions.

    Args:
        queries, outcomes, prices: Files as of `data=recorded`.
        components: F, directions that the prompts' features are reduced to.
        seed: Of features and folds.
        options: `targets`, `constraints`, `cost_scale_usd` of `make_task`.
    """
    from simulators.recorded import read_price_card, read_recording
    from toolkit.scorers.base import cross_fit
    from toolkit.scorers.text import TextScorer

    card = None if prices is None else read_price_card(prices)
    table = read_recording(queries, outcomes, None, prices=card).table
    scorer = TextScorer(ridge_alpha=10.0, neighbours=40, neighbour_weight=0.0, seed=seed)
    scores = cross_fit(scorer, table, folds=5, rng=spawn_rng(seed, "folds"))
    assert scores.quality is not None
    return routing_task(
        table=table,
        features=prompt_features(table.queries, components=components, seed=seed),
        predicted_quality=np.clip(scores.quality, 0.0, 1.0),
        predicted_cost_usd=scores.cost_usd,
        **options,
    )


def query_routing_from_recording(
    queries: str | Path, outcomes: str | Path, *, num_envs: int | None = None, **options: Any
) -> Any:
    """`QueryRouting-v0` on a recording: a single environment, or `num_envs` at once.

    Args:
        queries, outcomes: The two files.
        num_envs: None makes a single environment.
        options: Those of `recorded_task` and of the environment.
    """
    rules = {name: options.pop(name) for name in (*_RULES, "multipliers") if name in options}
    task = recorded_task(Path(queries), Path(outcomes), **options)
    if num_envs is None:
        return make_query_routing(task=task, **rules)
    return make_query_routing_vector(task=task, num_envs=num_envs, **rules)


def make_threshold_tuning(scenario: Scenario = "peak_hours", **options: Any) -> ThresholdTuningEnv:
    """`ThresholdTuning-v0`.

    Args:
        scenario: As of `make_query_routing`, with traffic.
        options: Those of `tuning_spec`.
    """
    require_gymnasium()
    from simulators.envs.threshold_tuning import ThresholdTuningEnv

    return ThresholdTuningEnv(_given_or_made(scenario, options))


def make_threshold_tuning_vector(
    scenario: Scenario = "peak_hours", *, num_envs: int = 1, autoreset_mode: str | None = None, **options: Any
) -> ThresholdTuningVectorEnv:
    """`ThresholdTuning-v0` for `num_envs` routers in the same traffic; the rest as of `make_threshold_tuning`."""
    require_gymnasium()
    from simulators.envs.threshold_tuning import ThresholdTuningVectorEnv

    mode = {} if autoreset_mode is None else {"autoreset_mode": autoreset_mode}
    return ThresholdTuningVectorEnv(_given_or_made(scenario, options), num_envs, **mode)


def _given_or_made(scenario: Scenario, options: dict[str, Any]) -> TuningSpec:
    tuning = options.pop("tuning", None)
    if tuning is not None and options:
        raise ConfigError(f"tuning= holds table, traffic and limits already; leave out {sorted(options)}")
    return tuning or tuning_spec(scenario, **options)


def tuning_spec(
    scenario: Scenario = "peak_hours",
    *,
    n_queries: int = 5_000,
    seed: int = 0,
    table: OutcomeTable | None = None,
    score: FloatArray | None = None,
    traffic: TrafficSpec | None = None,
    limits: Mapping[str, float] | tuple[Limit, ...] | None = None,
    latency_limit_s: float | None = 30.0,
    **options: Any,
) -> TuningSpec:
    """The task of a scenario's traffic, or of a table in that traffic.

    Args:
        scenario: As of `make_query_routing`; its tiers are those of a given table.
        n_queries: Size of the sample; unused where a table is given.
        seed: Of the sample.
        table: Recorded or sampled answers.
        score: `N`, higher is harder; None: the scenario's difficulty score.
        traffic: None: the scenario's.
        limits: Name -> bound, `late`, `wrong` or `cost`, each also as `NAME@SLICE`; None: at most 5 % late, 10 % wrong.
        latency_limit_s: Beyond it a request is late.
        options: The other fields of `TuningSpec`.

    Raises:
        InputDataError: If the table has no difficulty score and none is given.
    """
    require_gymnasium()
    from simulators.envs.tuning_episode import Limit, TuningSpec

    if table is None or traffic is None:
        spec = read_scenario(scenario)
        traffic = traffic_of(spec) if traffic is None else traffic
        if table is None:
            table = sample_scenario(spec, n_queries=n_queries, rng=spawn_rng(seed, "scenario"))
    if score is None and _SCORE not in table.queries.signals:
        raise InputDataError(f"the queries have no signal {_SCORE}; give score=N numbers, higher for harder queries")
    named: Any = {"late": 0.05, "wrong": 0.1} if limits is None else limits
    if isinstance(named, Mapping):
        parts = {name: name.partition("@") for name in named}
        named = tuple(Limit(kind=parts[x][0], at_most=bound, slice=parts[x][2] or None) for x, bound in named.items())
    return TuningSpec(
        table=table,
        score=table.queries.signals[_SCORE] if score is None else score,
        traffic=traffic,
        limits=named,
        latency_limit_s=latency_limit_s,
        **options,
    )


def read_scenario(scenario: Scenario) -> ScenarioSpec:
    """The scenario of that name, file or mapping.

    Raises:
        ConfigError: If there is none of that name, or its content is wrong.
    """
    if isinstance(scenario, Mapping):
        return parse_scenario(scenario)
    path = Path(scenario)
    return parse_scenario(read_scenario_file(path) if path.suffix in {".yaml", ".yml"} else _shipped(str(scenario)))


def _shipped(name: str) -> dict[str, Any]:
    """The content of `conf/scenario/NAME.yaml`, with what its defaults add."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    known = sorted(file.stem for file in Path(str(resources.files("conf").joinpath("scenario"))).glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"scenario={name}: expected a file ending in .yaml, or one of {', '.join(known)}")
    ready = GlobalHydra.instance().is_initialized()  # inside a command it is
    with nullcontext() if ready else initialize_config_module("conf", version_base="1.3"):
        config = compose(config_name="simulate", overrides=[f"scenario={name}"])
    content = OmegaConf.to_container(config["scenario"], resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def signal_features(queries: QueryBatch) -> FloatArray:
    """`N x F` signals with mean 0 and standard deviation 1; a missing one is 0.

    Raises:
        InputDataError: If there are none.
    """
    if not queries.signals:
        raise InputDataError("the queries have no numeric signal to use as features; give features=N x F numbers")
    found = np.stack([queries.signals[name] for name in sorted(queries.signals)], axis=1)
    known = np.isfinite(found)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, found, 0.0).sum(axis=0) / count
    centred = np.where(known, found - mean, 0.0)
    sd = np.sqrt((centred**2).sum(axis=0) / count)
    return np.asarray(centred / np.where(sd > 0, sd, 1.0))


def prompt_features(queries: QueryBatch, *, components: int, seed: int) -> FloatArray:
    """`N x F` leading directions of the prompts' TF-IDF and shape, each with standard deviation 1.

    Raises:
        InputDataError: If the queries have no prompts.
    """
    from sklearn.decomposition import TruncatedSVD

    from toolkit.scorers.features import PromptFeatures

    if queries.prompt is None:
        raise InputDataError(
            "features of prompts need a prompt column in the queries file; give features=N x F numbers"
        )
    X = PromptFeatures.fit(queries.prompt, seed=seed).transform(queries.prompt)
    reduced = TruncatedSVD(n_components=min(components, min(X.shape) - 1), random_state=seed).fit_transform(X)
    sd = reduced.std(axis=0)
    return np.asarray((reduced - reduced.mean(axis=0)) / np.where(sd > 0, sd, 1.0))


def binned_predictions(table: OutcomeTable, *, seed: int) -> tuple[FloatArray, FloatArray]:
    """`N x K` quality and cost in USD, out-of-fold, from the scenario's difficulty score."""
    from toolkit.scorers.base import cross_fit
    from toolkit.scorers.binned import BinnedScorer
    from toolkit.scorers.signals import SignalScorer

    scorer = BinnedScorer(base=SignalScorer(column=_SCORE))
    scores = cross_fit(scorer, table, folds=5, rng=spawn_rng(seed, "folds"))
    assert scores.quality is not None and scores.cost_usd is not None
    return scores.quality, scores.cost_usd


def require_gymnasium() -> None:
    """Fail in one line where the environments' package is missing.

    Raises:
        MissingDependencyError: If Gymnasium is not installed.
    """
    try:
        import gymnasium  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("the environments need Gymnasium: pip install 'routefront[rl]'") from error
