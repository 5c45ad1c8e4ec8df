"""What a report says about the search itself: that it was not needed, what it left out, what latencies mean."""

from __future__ import annotations

from experiments.pipeline import Prepared
from experiments.settings import TuneSettings
from experiments.under_load import world_note
from toolkit.search.base import SearchResult

_MOST_OUTSIDE = 0.25


def search_notes(settings: TuneSettings, prepared: Prepared, result: SearchResult) -> tuple[str, ...]:
    """What a user should know about the search: that it was not needed, or what latencies mean."""
    notes = []
    if settings.controller.kind != "exact" and settings.space.kind == "policy" and settings.world.kind == "none":
        free = settings.policy.kind == "thresholds" or settings.policy.offset_range == 0
        if free and settings.policy.kind != "target":
            notes.append(
                "This problem can be enumerated, exactly and in about a second, with controller=exact: "
                "a search is unnecessary here."
            )
    if result.n_replayed:
        notes.append(f"Resumed: {result.n_replayed:,} evaluations were taken from the journal.")
    if settings.tracking.kind == "wandb":
        notes.append("W&B: the run is recorded in wandb/ of the run folder; wandb sync uploads an offline one.")
    if settings.world.kind == "none" and settings.data.kind == "scenario" and (settings.scenario or {}).get("traffic"):
        notes.append("This scenario has traffic, and these figures are without it: world=traffic simulates it.")
    if prepared.problem.world is not None:
        notes.append(world_note(settings, prepared.problem.world))
    everything = result.evaluation
    feasible = everything.Y[everything.feasible]
    outside = (
        float((prepared.axes.scale(feasible) < prepared.axes.reference).any(axis=1).mean()) if len(feasible) else 0
    )
    if settings.controller.kind != "exact" and outside > _MOST_OUTSIDE:
        notes.append(
            f"{outside:.0%} of the feasible evaluations lie beyond the reference point (the single tiers' range "
            "without waits, and a margin): they add no hypervolume. If that region matters, widen it with axes.bounds."
        )
    return tuple(notes)
