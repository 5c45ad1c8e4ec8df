"""The search loop that every controller shares: ask, evaluate (or replay from the journal), tell."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from simulators.errors import InputDataError
from simulators.outcomes import FloatArray, IntArray
from toolkit.pareto.front import feasible_front
from toolkit.problem import Evaluation, RoutingProblem, concatenate
from toolkit.search.journal import Journal


class Controller(Protocol):
    """A searcher. Deterministic given its seed and what it was told, so that a journal can be replayed."""

    @property
    def name(self) -> str:
        """Name in configs."""
        ...

    @property
    def total(self) -> int | None:
        """Evaluations it plans, or None if it cannot know."""
        ...

    @property
    def exactness(self) -> str:
        """One sentence: what the result is exact for, or that it is a sample."""
        ...

    def ask(self) -> FloatArray | None:
        """Next batch of candidates, `n x p` natural parameters, or None when done."""
        ...

    def tell(self, evaluation: Evaluation) -> None:
        """Result of the batch asked last."""
        ...


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    Attributes:
        controller: Name of the controller.
        evaluation: All candidates, in journal order.
        front: Rows of the feasible non-dominated ones.
        n_failed: Evaluations without finite figures; they are counted, never zero.
        n_replayed: Evaluations taken from the journal of an interrupted run.
        seconds: Time spent evaluating in this session.
        exactness: What the result is exact for.
    """

    controller: str
    evaluation: Evaluation
    front: IntArray
    n_failed: int
    n_replayed: int
    seconds: float
    exactness: str


def run_search(
    problem: RoutingProblem,
    controller: Controller,
    journal: Journal | None = None,
    on_progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> SearchResult:
    """Run a controller to its end, journalling every evaluation.

    Args:
        problem: What is searched.
        controller: Who searches.
        journal: Where evaluations are appended; those it already holds are not evaluated again. None keeps none.
        on_progress: Called with (evaluations so far, total or None).

    Raises:
        InputDataError: If the journal belongs to another search.
    """
    known = None if journal is None else journal.read(problem)
    parts: list[Evaluation] = []
    done, spent = 0, 0.0
    while (params := controller.ask()) is not None:
        replayed, fresh = _split(known, params, done)
        batch = [] if replayed is None else [replayed]
        if len(fresh):
            start = time.perf_counter()
            batch.append(problem.evaluate_params(fresh))
            elapsed = time.perf_counter() - start
            spent += elapsed
            if journal is not None:
                journal.append(batch[-1], first_index=done + len(params) - len(fresh), seconds=elapsed)
        part = concatenate(batch)
        controller.tell(part)
        parts.append(part)
        done += len(params)
        on_progress(done, controller.total)
    everything = concatenate(parts)
    return SearchResult(
        controller=controller.name,
        evaluation=everything,
        front=feasible_front(everything),
        n_failed=int((~everything.ok).sum()),
        n_replayed=min(done, 0 if known is None else len(known)),
        seconds=spent,
        exactness=controller.exactness,
    )


def _split(known: Evaluation | None, params: FloatArray, done: int) -> tuple[Evaluation | None, FloatArray]:
    """The journalled part of a batch, and the parameters still to evaluate."""
    n_known = 0 if known is None else max(0, min(len(known) - done, len(params)))
    if known is None or n_known == 0:
        return None, params
    replayed = known.take(np.arange(done, done + n_known))
    if not np.array_equal(replayed.params, params[:n_known]):
        raise InputDataError("evaluations.jsonl holds another search than this config asks for; choose another out=DIR")
    return replayed, params[n_known:]
