r"""An arrival process from recorded instants: which family, how bursty, and whether the rate moves.

1. Requests per window, in up to 24 windows of at least 200 requests. Under a constant rate their variance is about
   $c^2$ times their mean (c the cv of the gaps, 1 at least); where $\sum (n_i - \bar n)^2 / (\bar n c^2)$ lies above
   the 0.999 quantile of its $\chi^2$ law, the windows' rates become a curve, and gaps are counted in expected requests.
2. Exponential, gamma and Weibull gaps with the observed mean; the shape by maximum likelihood; the family by AIC. The
   Kolmogorov-Smirnov distance stands beside each.

Stamps in coarse steps hide the gaps: where more than 5 % are 0, no law is fitted to them, and the cv is the one that
gives the observed dispersion of counts over windows of at least ten steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import chi2, kstest

from simulators.arrivals.modulated import RateCurve
from simulators.arrivals.renewal import GapLaw
from simulators.arrivals.specs import ArrivalSpec, DiurnalSpec, Family, GammaSpec, PoissonSpec, WeibullSpec
from simulators.errors import InputDataError
from simulators.outcomes import FloatArray
from simulators.traces import dispersion

_MOST_WINDOWS, _WINDOW_REQUESTS = 24, 200
_LEVEL = 1e-3
_MOST_TIED = 0.05
_STEPS_PER_WINDOW, _LEAST_COUNTS = 10, 30
_LOG_SHAPES = (math.log(0.02), math.log(400.0))
_LEAST_REQUESTS = 20
_MUCH, _FAR = 2.0, 0.1


@dataclass(frozen=True, kw_only=True)
class FamilyFit:
    """One family of gaps with the observed mean.

    Attributes:
        law: The fitted law, mean 1.
        distance: Kolmogorov-Smirnov distance between law and gaps.
        aic: Akaike's criterion, per gap; smaller is better.
    """

    law: GapLaw
    distance: float
    aic: float


@dataclass(frozen=True, kw_only=True)
class ArrivalFit:
    """A process, and how well it suits the instants it was fitted to.

    Attributes:
        spec: The chosen process; load 1 is the recorded rate.
        gaps: Recorded gaps in units of the local mean gap, in order of size; empty where stamps are too coarse.
        families: By `poisson`, `gamma`, `weibull`; empty where stamps are too coarse.
        chosen: Name of the chosen family.
        gap_cv: Recorded cv of `gaps` (NaN where empty).
        fitted_cv: cv of the process.
        idc: Recorded index of dispersion for counts by window in seconds; a constant rate tends to `fitted_cv ** 2`.
        rate_p_value: Of a constant rate, given the burstiness of the gaps.
        notes: What was assumed, and what the data does not hold.
    """

    spec: ArrivalSpec
    gaps: FloatArray
    families: dict[str, FamilyFit]
    chosen: str
    gap_cv: float
    fitted_cv: float
    idc: dict[float, float]
    rate_p_value: float
    notes: tuple[str, ...]

    def quantiles(self, p: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Quantiles of the fitted and of the recorded gaps at the levels `p`, in units of the local mean gap."""
        return self.families[self.chosen].law.quantile(p), np.quantile(self.gaps, p)


def fit_arrivals(arrival_s: FloatArray, *, curve: bool = True) -> ArrivalFit:
    """The process that suits recorded instants best.

    Args:
        arrival_s: `R` instants, ascending.
        curve: Whether a rate that moves may become a curve.

    Raises:
        InputDataError: If there are too few requests, or they do not ascend.
    """
    gaps = np.diff(arrival_s)
    if len(gaps) < _LEAST_REQUESTS or not (gaps >= 0).all() or not np.isfinite(arrival_s).all() or not gaps.any():
        raise InputDataError(
            f"arrivals can be fitted to {_LEAST_REQUESTS + 1} or more instants in ascending order; got "
            f"{len(arrival_s)}{' that do not ascend' if (gaps < 0).any() else ''}"
        )
    since_s, idc = arrival_s - arrival_s[0], {w: dispersion(arrival_s, w) for w in (10.0, 60.0)}
    if float((gaps == 0).mean()) > _MOST_TIED:
        return _fit_counts(since_s, gaps, idc)
    rate_per_s = len(gaps) / float(since_s[-1])
    counts, p_value = _moving_rate(since_s, float(gaps.std() / gaps.mean()))
    moves = curve and p_value < _LEVEL
    scaled = np.sort(np.diff(_operational(since_s, counts)) if moves else gaps * rate_per_s)
    scaled /= scaled.mean()
    families = _families(scaled)
    chosen = min(families, key=lambda name: families[name].aic)
    law = families[chosen].law
    return ArrivalFit(
        spec=_spec(chosen, law, rate_per_s, counts if moves else None, float(since_s[-1])),
        gaps=scaled,
        families=families,
        chosen=chosen,
        gap_cv=float(scaled.std()),
        fitted_cv=law.cv,
        idc=idc,
        rate_p_value=p_value,
        notes=_notes(families[chosen], idc[60.0], p_value, len(counts) if moves else 0),
    )


def _notes(fit: FamilyFit, idc: float, p_value: float, n_steps: int) -> tuple[str, ...]:
    notes = []
    if n_steps:
        notes.append(
            f"The rate moves (p = {p_value:.2g}): a curve of {n_steps} steps, which repeats after the recording."
        )
    elif p_value < _LEVEL:
        notes.append(f"The rate moves (p = {p_value:.2g}), but no curve was asked for.")
    elif idc > _MUCH * max(fit.law.cv, 1.0) ** 2:
        notes.append(
            f"Bursts are understated: the dispersion of counts over 60 s is {idc:.3g} in the recording and about "
            f"{fit.law.cv**2:.3g} in the fit; replay the recording where tails matter."
        )
    if fit.distance > _FAR:
        notes.append(f"No family suits the gaps: the best is {fit.distance:.2f} away from them.")
    return tuple(notes)


def _moving_rate(since_s: FloatArray, cv: float) -> tuple[FloatArray, float]:
    """Requests per window, and the p-value of a constant rate."""
    n_windows = int(np.clip(len(since_s) // _WINDOW_REQUESTS, 1, _MOST_WINDOWS))
    counts = np.histogram(since_s, bins=n_windows, range=(0.0, float(since_s[-1])))[0].astype(np.float64)
    if n_windows < 2:
        return counts, 1.0
    statistic = float(((counts - counts.mean()) ** 2).sum() / (counts.mean() * max(cv, 1.0) ** 2))
    return counts, float(chi2.sf(statistic, n_windows - 1))


def _operational(since_s: FloatArray, counts: FloatArray) -> FloatArray:
    """Expected number of requests before each instant, under a rate that steps."""
    knot_s = np.linspace(0.0, float(since_s[-1]), len(counts) + 1)
    rate = counts / np.diff(knot_s)
    return RateCurve(knot_s=knot_s, left=rate, right=rate).integrated(since_s)


def _families(gaps: FloatArray) -> dict[str, FamilyFit]:
    """Fits to gaps with mean 1; a gap of 0 counts as half the smallest positive one."""
    positive = np.where(gaps > 0, gaps, 0.5 * gaps[gaps > 0].min())
    exponential = GapLaw(family="gamma", shape=1.0)
    laws: dict[str, tuple[GapLaw, int]] = {"poisson": (exponential, 0)}
    families: tuple[Family, ...] = ("gamma", "weibull")
    for family in families:
        laws[family] = (_most_likely(family, positive), 1)
    return {
        name: FamilyFit(
            law=law,
            distance=float(kstest(law.cdf(gaps), "uniform").statistic),
            aic=2.0 * (n_parameters / len(gaps) - float(law.log_density(positive).mean())),
        )
        for name, (law, n_parameters) in laws.items()
    }


def _most_likely(family: Family, gaps: FloatArray) -> GapLaw:
    def loss(log_shape: float) -> float:
        return -float(GapLaw(family=family, shape=math.exp(log_shape)).log_density(gaps).mean())

    best = minimize_scalar(loss, bounds=_LOG_SHAPES, method="bounded", options={"xatol": 1e-6})
    return GapLaw(family=family, shape=math.exp(float(best.x)))


def _spec(chosen: str, law: GapLaw, rate_per_s: float, counts: FloatArray | None, period_s: float) -> ArrivalSpec:
    cv = float(f"{law.cv:.6g}")
    if counts is not None:
        curve = tuple((counts / counts.mean()).round(4).tolist())
        return DiurnalSpec(
            rate_per_s=rate_per_s, curve=curve, period_s=period_s, interpolation="step", cv=cv, family=law.family
        )
    if chosen == "poisson":
        return PoissonSpec(rate_per_s=rate_per_s)
    return (GammaSpec if chosen == "gamma" else WeibullSpec)(rate_per_s=rate_per_s, cv=cv)


def _fit_counts(since_s: FloatArray, gaps: FloatArray, idc: dict[float, float]) -> ArrivalFit:
    """A gamma process with the dispersion of counts over windows of whole steps."""
    step_s = float(np.median(gaps[gaps > 0]))
    n_steps = max(_STEPS_PER_WINDOW, round(60.0 / step_s))
    window_s = n_steps * step_s
    if since_s[-1] < _LEAST_COUNTS * window_s:
        raise InputDataError(
            f"stamps come in steps of about {step_s:g} s, so only counts can be fitted, and {since_s[-1]:g} s hold "
            f"fewer than {_LEAST_COUNTS} windows of {window_s:g} s; give finer stamps or a longer trace"
        )
    observed = dispersion(since_s + 0.5 * step_s, window_s)
    cv, rate_per_s = math.sqrt(max(observed, 1.0)), (len(since_s) - 1) / float(since_s[-1])
    poisson = cv == 1.0
    return ArrivalFit(
        spec=PoissonSpec(rate_per_s=rate_per_s) if poisson else GammaSpec(rate_per_s=rate_per_s, cv=float(f"{cv:.6g}")),
        gaps=np.empty(0),
        families={},
        chosen="poisson" if poisson else "gamma",
        gap_cv=math.nan,
        fitted_cv=cv,
        idc=idc,
        rate_p_value=math.nan,
        notes=(
            f"Stamps come in steps of about {step_s:g} s, so no law was fitted to the gaps: the cv is the one that "
            f"gives the dispersion {observed:.3g} of counts over {window_s:.3g} s, and the family is assumed.",
        ),
    )
