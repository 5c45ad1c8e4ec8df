"""The search loop that every controller shares: ask, evaluate (or replay from the journal), tell."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from simulators.errors import InputDataError
from simulators.outcomes import FloatArray, IntArray
from toolkit.pareto.front import feasible_front
from toolkit.problem import Evaluation, Problem, concatenate
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


@runtime_checkable
class Resumable(Protocol):
    """A controller whose next batch depends on the evaluations so far and the seed alone, not on its own past.

    Resuming one costs nothing: it takes the journal as it is. Others are asked again and the answers compared.
    """

    def resume(self, known: Evaluation) -> int:
        """Take the first evaluations of an interrupted run; returns how many of them need not be asked for again."""
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
    problem: Problem,
    controller: Controller,
    journal: Journal | None = None,
    on_progress: Callable[[int, int | None], None] = lambda done, total: None,
    on_evaluations: Callable[[Evaluation], None] = lambda evaluation: None,
) -> SearchResult:
    """Run a controller to its end, journalling every evaluation.

    Args:
        problem: What is searched.
        controller: Who searches.
        journal: Where evaluations are appended; those it already holds are not evaluated again. None keeps none.
        on_progress: Called with (evaluations so far, total or None).
        on_evaluations: Called with each batch, in order, replayed ones included.

    Raises:
        InputDataError: If the journal belongs to another search.
    """
    known = None if journal is None else journal.read(problem)
    parts: list[Evaluation] = []
    done, spent = 0, 0.0
    if known is not None and isinstance(controller, Resumable) and (done := controller.resume(known)):
        parts.append(known.take(np.arange(done)))
        on_evaluations(parts[-1])
        on_progress(done, controller.total)
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
        on_evaluations(part)
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
