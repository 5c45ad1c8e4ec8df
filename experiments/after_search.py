"""What a controller that learns leaves beside its candidates."""

from __future__ import annotations

from experiments.choice import Chosen
from experiments.console import busy
from experiments.per_query import compare_per_query, save_per_query
from experiments.pipeline import Prepared
from experiments.rl_settings import PpoLagrangianSettings
from experiments.run_folder import RunFolder
from experiments.settings import TuneSettings
from toolkit.search.base import Controller, SearchResult


def after_search(
    settings: TuneSettings,
    prepared: Prepared,
    controller: Controller,
    result: SearchResult,
    chosen: Chosen,
    folder: RunFolder,
    *,
    quiet: bool,
) -> tuple[str, ...]:
    """What a controller that learns leaves beside its candidates, in the run's folder; sentences about it."""
    compared = compare_per_query(settings, prepared, result, folder, quiet=quiet)
    if compared is not None:
        save_per_query(compared, folder)
        return (compared.sentence,)
    if not isinstance(settings.controller, PpoLagrangianSettings):
        return ()
    from experiments.window_training import judge_windows

    with busy("Playing the policy per window in unseen traffic", quiet=quiet):
        params = result.evaluation.params[chosen.choice.row]
        judged = judge_windows(settings, prepared, controller, params, folder)
    return () if judged is None else (judged.sentence,)
