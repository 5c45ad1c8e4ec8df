"""What `routefront calibrate` fits to: the recording with pooled slices and names that a scenario can have."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.calibrate_settings import CalibrateSettings
from experiments.loading import required
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.prices import PriceCard
from simulators.recorded import read_price_card, read_recording

_OTHER, _ALL = "other", "all"
_FEWEST_TOKENS = 10


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A recording as the fits need it.

    Attributes:
        table: Outcomes, slices pooled, tiers and slices renamed where a scenario could not have their names. `error`
            marks answers that nothing is fitted to, because their share becomes a station's error rate.
        models: `K` names of the tiers in the files.
        prices: Price card, or None.
        reference: Index of the tier whose tokens stand for a slice's; None where no tier's are known.
        source: Name of the outcomes file.
        priced_by_card: Whether the costs of the table are the card's, not recorded ones.
        n_failed: `K` recorded answers with an error.
        notes: Sentences on what was pooled, renamed or left out.
    """

    table: OutcomeTable
    models: tuple[str, ...]
    prices: PriceCard | None
    reference: int | None
    source: str
    priced_by_card: bool
    n_failed: IntArray
    notes: tuple[str, ...]

    @property
    def reference_model(self) -> str:
        """Name of the reference tier in the files."""
        return "" if self.reference is None else self.models[self.reference]

    def reference_tokens(self) -> tuple[FloatArray, FloatArray]:
        """`N` input and `N` visible output tokens of the reference tier, NaN where unknown."""
        unknown = np.full(self.table.n_queries, np.nan)
        if self.reference is None:
            return unknown, unknown
        return self.table.input_tokens[:, self.reference], self.table.output_tokens[:, self.reference]

    def is_reasoning(self, k: int, settings: CalibrateSettings) -> bool:
        """Whether the settings say that tier `k` thinks in tokens that nobody sees."""
        return bool({self.models[k], self.table.tiers[k]} & set(settings.reasoning or ()))

    def has_tokens(self, k: int) -> bool:
        """Whether enough tokens of tier `k` are known."""
        return bool(_known_tokens(self.table)[k] >= _FEWEST_TOKENS)


def read_recorded(settings: CalibrateSettings) -> Recorded:
    """The recording of the settings.

    Raises:
        InputDataError: If the files cannot be used.
        ConfigError: If `reference` or `reasoning` names no tier.
    """
    data = settings.data
    if data.repeats is not None:
        raise ConfigError("data.repeats measures label noise in a tuning run; calibrate does not read it")
    queries, outcomes = Path(required(data.queries, "data.queries")), Path(required(data.outcomes, "data.outcomes"))
    prices = None if data.prices is None else read_price_card(Path(data.prices))
    tiers = None if data.tiers == "auto" else list(data.tiers)
    recording = read_recording(queries, outcomes, tiers, prices=prices, partial_latency=True)
    table, notes = pool_slices(recording.table, settings.slices.minimum)
    models, named = table.tiers, _clean(table.tiers)
    table = dataclasses.replace(table, tiers=named, _hash=[])
    renamed = [f"{old} is {new}" for old, new in zip(models, named, strict=True) if old != new]
    notes = (*recording.notes, *notes, *([f"Tiers were renamed: {', '.join(renamed)}."] if renamed else []))
    n_failed = np.asarray(table.error.sum(axis=0), dtype=np.int64)
    table, error_notes = _without_errors(table, models, settings)
    notes += error_notes
    unknown = [name for name in settings.reasoning or () if name not in {*models, *named}]
    if unknown:
        raise ConfigError(f"reasoning names {unknown}, which are none of the tiers {list(models)}")
    return Recorded(
        table=table,
        models=models,
        prices=prices,
        reference=_reference(table, models, settings),
        source=outcomes.name,
        priced_by_card=recording.priced_by_card,
        n_failed=n_failed,
        notes=notes,
    )


def _without_errors(
    table: OutcomeTable, models: Sequence[str], settings: CalibrateSettings
) -> tuple[OutcomeTable, tuple[str, ...]]:
    """Where there is traffic, and so error rates, the table without what failed answers say; else with all of it.

    A failure that lowers the quality of the answers and is an error rate too would count twice.
    """
    if settings.traces is None and settings.rate_per_s is None:
        return dataclasses.replace(table, error=np.zeros_like(table.error), _hash=[]), ()
    failed = [f"{m} {n:,}" for m, n in zip(models, table.error.sum(axis=0), strict=True) if n]
    note = (
        f"Answers with an error, of {table.n_queries:,} ({', '.join(failed)}), are in the error rates alone: quality, "
        "cost, tokens and times are fitted to the others, and held against them."
    )
    known = dataclasses.replace(
        table,
        cost_usd=np.where(table.error, np.nan, table.cost_usd),
        latency_s=np.where(table.error, np.nan, table.latency_s),
        ttft_s=np.where(table.error, np.nan, table.ttft_s),
        input_tokens=np.where(table.error, np.nan, table.input_tokens),
        output_tokens=np.where(table.error, np.nan, table.output_tokens),
        _hash=[],
    )
    return known, (note,) if failed else ()


def tier_index(name: str, models: Sequence[str], tiers: Sequence[str], option: str) -> int:
    """Index of a tier by either of its names.

    Raises:
        ConfigError: If there is none.
    """
    for names in (models, tiers):
        if name in names:
            return list(names).index(name)
    raise ConfigError(f"{option} names {name!r}, which is none of the tiers {list(models)}")


def _known_tokens(table: OutcomeTable) -> IntArray:
    """`K` answers with positive input and output tokens."""
    return np.asarray(((table.input_tokens > 0) & (table.output_tokens > 0)).sum(axis=0), dtype=np.int64)


def _reference(table: OutcomeTable, models: tuple[str, ...], settings: CalibrateSettings) -> int | None:
    known = _known_tokens(table)
    if settings.reference is not None:
        k = tier_index(settings.reference, models, table.tiers, "reference")
        if known[k] < _FEWEST_TOKENS:
            raise ConfigError(f"reference={settings.reference}: only {known[k]} answers of this tier have tokens")
        return k
    reasoning = set(settings.reasoning or ())
    known = np.where([bool({*pair} & reasoning) for pair in zip(models, table.tiers, strict=True)], 0, known)
    return int(known.argmax()) if known.max() >= _FEWEST_TOKENS else None


def pool_slices(table: OutcomeTable, minimum: int) -> tuple[OutcomeTable, tuple[str, ...]]:
    """Slices below the minimum go to the part of their name before the first `/`, and what is small still to `other`.

    A rest of a single query goes to the smallest other slice, because nothing can be fitted to it.
    """
    names = [table.slices[c] for c in table.slice_code]
    small = {name for name, n in Counter(names).items() if n < minimum}
    pooled = [name.split("/", 1)[0] if name in small else name for name in names]
    still = {name for name, n in Counter(pooled).items() if n < minimum}
    pooled = [_OTHER if name in still else name for name in pooled]
    counts = Counter(pooled)
    if counts.get(_OTHER, 2) < 2 and len(counts) > 1:
        nearest = min((name for name in counts if name != _OTHER), key=lambda name: counts[name])
        pooled = [nearest if name == _OTHER else name for name in pooled]
    if set(pooled) == {_OTHER}:
        pooled = [_ALL] * len(pooled)
    labels, code = np.unique(pooled, return_inverse=True)
    clean = _clean(labels.tolist())
    notes = []
    if small:
        notes.append(
            f"{len(small)} slices with fewer than {minimum} queries were pooled; {len(clean)} slices remain: "
            f"{', '.join(clean)}."
        )
    elif list(clean) != labels.tolist():
        notes.append(f"Slices were renamed: {', '.join(clean)}.")
    order = np.argsort(clean)
    rank = np.argsort(order)
    return dataclasses.replace(
        table, slices=tuple(clean[i] for i in order), slice_code=rank[code].astype(np.int64), _hash=[]
    ), tuple(notes)


def _clean(names: Sequence[str]) -> tuple[str, ...]:
    """Names of letters, digits, `_`, `.` and `-`, all different."""
    found: list[str] = []
    for name in names:
        base = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-_.") or "unnamed"
        own, i = base, 2
        while own in found:
            own, i = f"{base}-{i}", i + 1
        found.append(own)
    return tuple(found)
