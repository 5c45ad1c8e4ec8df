"""The routers of a scenario as scorers: rules, a classifier, an LLM, one with memory.

A scenario draws three signals per query for each of its routers: a score, a confidence (of no use where it states
none) and the seconds that it takes to decide, which are a part of its overhead (`toolkit.scorers.overhead`).
"""

from __future__ import annotations

from simulators.strategies import signal_names
from toolkit.scorers.signals import SignalScorer


def strategy_scorer(strategy: str, *, confidence: bool) -> SignalScorer:
    """The scorer of one router of a scenario.

    Args:
        strategy: Name of the router in the scenario.
        confidence: Whether it states a confidence.
    """
    score, told, _ = signal_names(strategy)
    return SignalScorer(column=score, confidence_column=told if confidence else None, kind="strategy")


def delay_signal(strategy: str) -> str:
    """Name of the signal that holds the seconds a router takes."""
    return signal_names(strategy)[2]
