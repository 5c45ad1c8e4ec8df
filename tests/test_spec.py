"""Specifications in YAML: the strict base, and errors of validation as one line."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError, model_validator

from simulators.arrivals import ArrivalSpec, parse_arrivals
from simulators.errors import ConfigError
from simulators.spec import Spec, one_line


class Pair(Spec):
    """A specification with unions at several depths."""

    left: ArrivalSpec | None
    right: int
    more: tuple[ArrivalSpec, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Pair:
        if self.right < 0:
            raise ValueError("right should not be negative")
        return self


def anything() -> st.SearchStrategy[object]:
    """Nested values, many of them almost a specification."""
    scalars = st.one_of(st.none(), st.booleans(), st.integers(-3, 10**9), st.floats(), st.text(max_size=5))
    keys = st.sampled_from(["rate_per_s", "cv", "curve", "rates_per_s", "mean_stay_s", "clients", "path", "odd"])
    kind = st.sampled_from(["poisson", "gamma", "weibull", "mmpp", "diurnal", "trace", "servegen", "clients", "other"])

    def nested(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
        almost = st.builds(lambda k, rest: {**rest, "kind": k}, kind, st.dictionaries(keys, inner, max_size=4))
        return st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3), almost)

    return st.recursive(scalars, nested, max_leaves=12)


class TestParsing:
    @pytest.mark.parametrize(
        "raw, message",
        [
            (
                {"kind": "poisson", "rate_per_s": 0},
                "arrivals.rate_per_s: expected a value that is greater than 0; got 0",
            ),
            ({"kind": "poisson", "rate_per_s": -2.0}, "arrivals.rate_per_s: .* greater than 0; got -2.0"),
            ({"kind": "gamma", "rate_per_s": 1, "cv": 0}, "arrivals.cv: .* greater than or equal to 0.001; got 0"),
            ({"kind": "gamma", "rate_per_s": 1, "cv": float("nan")}, "arrivals.cv: .* finite number; got nan"),
            ({"kind": "gamma", "rate_per_s": 1}, "arrivals.cv: expected a value; got nothing"),
            ({"kind": "gamma", "rate": 1}, "arrivals.rate_per_s: .* 2 more such errors"),
            (
                {"kind": "poisson", "rate_per_s": 1, "cv": 1},
                "arrivals.cv: expected one of kind, rate_per_s; .* unknown key",
            ),
            ({"kind": "normal"}, "arrivals.kind: expected one of poisson, gamma, .*; got 'normal'"),
            ({}, "arrivals.kind: expected one of poisson, .*; got nothing"),
            (3, "arrivals: .*; got 3"),
            ({"kind": "mmpp", "rates_per_s": [1, 2], "mean_stay_s": [1]}, "arrivals.mean_stay_s: .*at least 2"),
            (
                {"kind": "mmpp", "rates_per_s": [1, 2, 3], "mean_stay_s": [1, 2]},
                "one mean stay per state, these are 3 and 2",
            ),
            ({"kind": "mmpp", "rates_per_s": [0, 0], "mean_stay_s": [1, 2]}, "a positive rate in some state"),
            (
                {"kind": "mmpp", "rates_per_s": [1, 2], "mean_stay_s": [1, 0]},
                r"arrivals.mean_stay_s.1: .* than 0; got 0",
            ),
            ({"kind": "diurnal", "rate_per_s": 1, "curve": [0, 0]}, "a positive value somewhere on the curve"),
            ({"kind": "diurnal", "rate_per_s": 1, "curve": [1, -1]}, "arrivals.curve.1: .* or equal to 0; got -1"),
            (
                {"kind": "trace", "path": "t", "start_s": 5, "end_s": 4},
                "expected end_s after start_s, these are 4 and 5",
            ),
            ({"kind": "clients", "clients": {}}, "arrivals.clients: .*at least 1"),
            (
                {"kind": "clients", "clients": {"a": {"kind": "gamma", "rate_per_s": 1, "cv": -1}}},
                "arrivals.clients.a.cv: expected .*; got -1",
            ),
            ({"kind": "clients", "clients": {"a": {"kind": "x"}}}, "arrivals.clients.a.kind: expected one of poisson"),
        ],
    )
    def test_one_line_says_what_is_wrong(self, raw, message):
        with pytest.raises(ConfigError, match=message) as caught:
            parse_arrivals(raw)
        assert "\n" not in str(caught.value)

    @settings(max_examples=150)
    @given(anything())
    def test_anything_is_a_specification_or_one_line(self, raw):
        try:
            spec = parse_arrivals(raw)
        except ConfigError as error:
            assert str(error).startswith("arrivals") and "\n" not in str(error)
        else:
            assert parse_arrivals(spec.model_dump()) == spec

    def test_a_specification_survives_yaml(self):
        poisson = {"kind": "poisson", "rate_per_s": 20.0}
        mmpp = {"kind": "mmpp", "rates_per_s": [50.0, 10.0], "mean_stay_s": [1.0, 1.0]}
        spec: ArrivalSpec = parse_arrivals({"kind": "clients", "clients": {"a": poisson, "b": mmpp}})
        assert parse_arrivals(yaml.safe_load(yaml.safe_dump(spec.model_dump(mode="json")))) == spec

    def test_without_the_shape_the_kind_stays_in_the_path(self):
        with pytest.raises(ValidationError) as caught:
            Pair.model_validate({"left": {"kind": "gamma", "rate_per_s": 1, "cv": 0}, "right": 1})
        assert one_line(caught.value, "pair").startswith("pair.left.gamma.cv: expected a value")
        assert one_line(caught.value, "pair", Pair).startswith("pair.left.cv: expected a value")

    @pytest.mark.parametrize(
        "raw, message",
        [
            ({"odd": 1}, "pair.left: expected a value; got nothing (and 2 more such errors)"),
            ({"left": None, "right": 1, "odd": 1}, "pair.odd: expected one of left, right, more; got an unknown key"),
            ({"left": None, "right": 1, "more": [{"kind": "x"}]}, "pair.more.0.kind: expected one of poisson, gamma,"),
            ({"left": {"rate_per_s": 1}, "right": 1}, "pair.left.kind: expected one of poisson, gamma,"),
            ({"left": None, "right": "a\nb"}, "pair.right: expected a value that is a valid integer,"),
            ({"left": None, "right": -1}, "pair: right should not be negative"),
        ],
    )
    def test_lines_of_nested_specifications(self, raw, message):
        with pytest.raises(ValidationError) as caught:
            Pair.model_validate(raw)
        line = one_line(caught.value, "pair", Pair)
        assert line.startswith(message) and "\n" not in line
