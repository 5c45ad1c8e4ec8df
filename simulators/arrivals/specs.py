"""Arrival processes as YAML states them; `sampling.py` draws from them.

Rates are requests per second at load 1; a `cv` is standard deviation over mean of the gaps between arrivals (1:
Poisson). `load` multiplies every rate: renewal processes and traces are the same arrivals, closer together; rate
curves, modulating states and windows keep their places in time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from simulators.errors import ConfigError
from simulators.spec import Name, Spec, one_line

Rate = Annotated[float, Field(gt=0, le=1e7)]
Cv = Annotated[float, Field(ge=1e-3, le=1e4)]
Seconds = Annotated[float, Field(gt=0, le=1e9)]
Instant = Annotated[float, Field(ge=0, le=1e10)]
Factor = Annotated[float, Field(gt=0, le=1e6)]
NotNegative = Annotated[float, Field(ge=0, le=1e7)]
Family: TypeAlias = Literal["gamma", "weibull"]


class PoissonSpec(Spec):
    """Independent exponential gaps."""

    kind: Literal["poisson"] = "poisson"
    rate_per_s: Rate


class GammaSpec(Spec):
    """Independent gamma gaps."""

    kind: Literal["gamma"] = "gamma"
    rate_per_s: Rate
    cv: Cv


class WeibullSpec(Spec):
    """Independent Weibull gaps; the shape follows from `cv`."""

    kind: Literal["weibull"] = "weibull"
    rate_per_s: Rate
    cv: Cv


class MmppSpec(Spec):
    """Poisson arrivals whose rate jumps between states: a Markov-modulated Poisson process, started in stationarity.

    Attributes:
        rates_per_s: Arrival rate in each state; 0 is silence.
        mean_stay_s: Mean of the exponential stay in each state.
        switching: `cyclic`: to the next state of the list; `uniform`: to any other, with equal probability.
    """

    kind: Literal["mmpp"] = "mmpp"
    rates_per_s: Annotated[tuple[NotNegative, ...], Field(min_length=2)]
    mean_stay_s: Annotated[tuple[Seconds, ...], Field(min_length=2)]
    switching: Literal["cyclic", "uniform"] = "cyclic"

    @model_validator(mode="after")
    def _states_match(self) -> MmppSpec:
        if len(self.rates_per_s) != len(self.mean_stay_s):
            counts = f"{len(self.rates_per_s)} and {len(self.mean_stay_s)}"
            raise ValueError(f"expected one rate and one mean stay per state, these are {counts}")
        if not any(self.rates_per_s):
            raise ValueError("expected a positive rate in some state, all are 0")
        return self


class DiurnalSpec(Spec):
    """A rate that follows a periodic curve: a renewal process run on the integrated rate.

    Attributes:
        rate_per_s: Mean over a whole period.
        curve: Relative rates at equally spaced knots, the first at the start of the period. Only ratios count.
        period_s: Length of a period; the curve repeats.
        start_s: Place on the curve where the simulation starts.
        interpolation: `linear` between knots (and from the last to the first), or `step`: each knot's rate holds until
            the next.
        cv, family: Gaps in units of the local mean gap.
    """

    kind: Literal["diurnal"] = "diurnal"
    rate_per_s: Rate
    curve: Annotated[tuple[NotNegative, ...], Field(min_length=2)]
    period_s: Seconds = 86_400.0
    start_s: Instant = 0.0
    interpolation: Literal["linear", "step"] = "linear"
    cv: Cv = 1.0
    family: Family = "gamma"

    @model_validator(mode="after")
    def _some_traffic(self) -> DiurnalSpec:
        if not any(self.curve):
            raise ValueError("expected a positive value somewhere on the curve, all are 0")
        return self


class TraceSpec(Spec):
    """Replay of recorded instants, with their tokens where the file has them.

    Attributes:
        path: Parquet, CSV or JSONL.
        column: Instants in seconds, ascending.
        rate_scale: Factor of the rate: the trace runs that much faster.
        start_s, end_s: Cut of the trace, in its own time; the end is one mean gap after the last request by default.
        repeat: Whether it starts again at its end; without, a longer simulation is an error.
        spread_s: Instants rounded down to such steps are spread evenly within them; by default ties stay ties.
    """

    kind: Literal["trace"] = "trace"
    path: Annotated[str, Field(min_length=1)]
    column: str = "arrival_s"
    rate_scale: Factor = 1.0
    start_s: Instant = 0.0
    end_s: Seconds | None = None
    repeat: bool = False
    spread_s: NotNegative = 0.0

    @model_validator(mode="after")
    def _cut_in_order(self) -> TraceSpec:
        _check_cut(self.start_s, self.end_s)
        return self


class ServeGenSpec(Spec):
    """Clients of ServeGen's published figures: rate, cv and family of the gaps per client and 600 s window.

    Attributes:
        path: The table of rates by client.
        model: Whose clients.
        start_s, end_s: Cut, in the table's time; the end is that of the model's last window by default.
        rate_scale: Factor of all rates.
        most_clients: Only so many, those with the most requests in the cut.
        shape_from: `cv`: gaps have the measured cv; `fit`: they have the shape that was fitted to them (for Weibull
            windows the two disagree, by 20 % in the median).
        repeat: Whether the cut starts again at its end; without, a longer simulation is an error.
    """

    kind: Literal["servegen"] = "servegen"
    path: Annotated[str, Field(min_length=1)]
    model: str
    start_s: Instant = 0.0
    end_s: Seconds | None = None
    rate_scale: Factor = 1.0
    most_clients: Annotated[int, Field(ge=1)] | None = None
    shape_from: Literal["cv", "fit"] = "cv"
    repeat: bool = False

    @model_validator(mode="after")
    def _cut_in_order(self) -> ServeGenSpec:
        _check_cut(self.start_s, self.end_s)
        return self


class ClientsSpec(Spec):
    """Independent clients at once.

    Attributes:
        clients: Each one's own process, by name.
    """

    kind: Literal["clients"] = "clients"
    clients: Annotated[Mapping[Name, ArrivalSpec], Field(min_length=1)]


ArrivalSpec: TypeAlias = Annotated[
    PoissonSpec | GammaSpec | WeibullSpec | MmppSpec | DiurnalSpec | TraceSpec | ServeGenSpec | ClientsSpec,
    Field(discriminator="kind"),
]
ClientsSpec.model_rebuild()
_ADAPTER: TypeAdapter[ArrivalSpec] = TypeAdapter(ArrivalSpec)


def parse_arrivals(raw: object, root: str = "arrivals") -> ArrivalSpec:
    """The validated process of a plain mapping, such as a resolved config group.

    Raises:
        ConfigError: On the first wrong field, in one line that names it, what was expected and what came.
    """
    try:
        return _ADAPTER.validate_python(raw)
    except ValidationError as error:
        raise ConfigError(one_line(error, root, ArrivalSpec)) from error


def _check_cut(start_s: float, end_s: float | None) -> None:
    if end_s is not None and end_s <= start_s:
        raise ValueError(f"expected end_s after start_s, these are {end_s:g} and {start_s:g}")
