r"""A policy that sets the thresholds of the next window of traffic, in NumPy alone.

Notation: E environments, d observed figures, A = K - 1 boundaries between K tiers. An *action* is a vector of load
fractions: `a_k` is the share of the queries that goes below boundary k, so that it ascends and lies in [0, 1].

.. math:: a = \mathrm{sort}(\mathrm{clip}(h + s \tanh(f(x)), 0, 1))

with the centre h (*home*), the span s and a network f of two hidden layers. Its last layer starts at zero, so that an
untrained policy is its static home.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import FloatArray

FARTHEST = 5.0
_FORMAT = 1
_LAYERS = ("actor_w1", "actor_b1", "actor_w2", "actor_b2", "actor_w3")
_ARRAYS = (*_LAYERS, "home", "observation_mean", "observation_std")


@dataclass(frozen=True, kw_only=True)
class WindowPolicy:
    """A deterministic policy: figures of the last window in, load fractions of the next one out.

    Attributes:
        weights: `actor_w1: d x h`, `actor_b1: h`, `actor_w2: h x h`, `actor_b2: h`, `actor_w3: h x A`, `home: A`.
        observation_mean, observation_std: `d`, frozen at the end of training.
        span: Most that a boundary leaves home, as a share of the load.
    """

    weights: dict[str, FloatArray]
    observation_mean: FloatArray
    observation_std: FloatArray
    span: float

    @property
    def home(self) -> FloatArray:
        """`A` load fractions that the policy deviates from, as it would play them."""
        return as_action(self.weights["home"])

    def act(self, observation: FloatArray) -> FloatArray:
        """`E x A` load fractions after `observation: E x d`."""
        return as_action(self.mean(self.normalise(observation)))

    def mean(self, normalised: FloatArray) -> FloatArray:
        """`E x A` centre of the Gaussian at normalised observations, neither clipped nor sorted."""
        w = self.weights
        hidden = np.tanh(normalised @ w["actor_w1"] + w["actor_b1"])
        hidden = np.tanh(hidden @ w["actor_w2"] + w["actor_b2"])
        return np.asarray(w["home"] + self.span * np.tanh(hidden @ w["actor_w3"]))

    def normalise(self, observation: FloatArray) -> FloatArray:
        """`E x d` in units of the spread seen in training, cut at `FARTHEST`.

        Raises:
            InputDataError: If the figures are not those that the policy was trained on.
        """
        observation = np.asarray(observation, dtype=np.float64)
        if observation.ndim != 2 or observation.shape[1] != len(self.observation_mean):
            raise InputDataError(
                f"the policy reads {len(self.observation_mean)} figures per window; got shape {observation.shape}"
            )
        return np.clip((observation - self.observation_mean) / self.observation_std, -FARTHEST, FARTHEST)

    def save(self, folder: Path) -> None:
        """Write `window_policy.npz` and `window_policy.json` into `folder`, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        spread = {"observation_mean": self.observation_mean, "observation_std": self.observation_std}
        arrays: dict[str, Any] = {name: self.weights[name] for name in (*_LAYERS, "home")} | spread
        np.savez(folder / "window_policy.npz", **arrays)
        record = {"format": _FORMAT, "span": self.span, "n_observed": len(self.observation_mean)}
        (folder / "window_policy.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> WindowPolicy:
        """Read what `save` wrote.

        Raises:
            InputDataError: If the folder holds no such policy.
        """
        try:
            record = json.loads((folder / "window_policy.json").read_text(encoding="utf-8"))
            with (folder / "window_policy.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: np.asarray(stored[name], dtype=np.float64) for name in _ARRAYS}
            if record["format"] != _FORMAT:
                raise ValueError(f"format {record['format']} instead of {_FORMAT}")
            span = float(record["span"])
        except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise InputDataError(f"{folder} holds no window policy ({error}); train one with train()") from error
        return WindowPolicy(
            weights={name: arrays[name] for name in (*_LAYERS, "home")},
            observation_mean=arrays["observation_mean"],
            observation_std=arrays["observation_std"],
            span=span,
        )


def static_policy(home: FloatArray, n_observed: int) -> WindowPolicy:
    """A policy that plays `home: A` whatever it observes, to compare a trained one with."""
    d, a = n_observed, len(check_home(home))
    shapes = {"actor_w1": (d, 1), "actor_b1": (1,), "actor_w2": (1, 1), "actor_b2": (1,), "actor_w3": (1, a)}
    weights = {name: np.zeros(shape) for name, shape in shapes.items()}
    weights["home"] = np.array(home, dtype=np.float64)
    return WindowPolicy(weights=weights, observation_mean=np.zeros(d), observation_std=np.ones(d), span=0.0)


def as_action(raw: FloatArray) -> FloatArray:
    """`... x A` load fractions: clipped to [0, 1] and ascending."""
    return np.asarray(np.sort(np.clip(raw, 0.0, 1.0), axis=-1))


def check_home(home: FloatArray) -> FloatArray:
    """`home: A` as it is.

    Raises:
        ConfigError: If it is no vector of ascending fractions.
    """
    home = np.asarray(home, dtype=np.float64)
    if home.ndim != 1 or not len(home) or not np.array_equal(home, as_action(home)):
        raise ConfigError(f"home must be ascending load fractions in [0, 1], one per boundary; got {home.tolist()}")
    return home
