"""When requests come: specifications (`specs.py`), draws (`sampling.py`), fits to recorded instants (`fitting.py`)."""

from simulators.arrivals.sampling import Arrivals, mean_rate, sample_arrivals
from simulators.arrivals.specs import ArrivalSpec, parse_arrivals

__all__ = ["ArrivalSpec", "Arrivals", "mean_rate", "parse_arrivals", "sample_arrivals"]
