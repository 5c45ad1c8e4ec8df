"""Options of `ppo_lagrangian`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from simulators.errors import ConfigError
from toolkit.search.multipliers import Dual, GradientDual, PidDual


@dataclass(frozen=True, kw_only=True)
class PpoLagrangianOptions:
    """How a window policy is trained.

    Attributes:
        iterations: Iterations of `traffics * copies` episodes each.
        traffics: Different traffics per iteration.
        copies: Episodes on each of them.
        epochs, minibatches: Passes over the episodes of an iteration, and the parts of each pass.
        lr: Step size of Adam at the start; falls linearly to a tenth.
        clip: epsilon of the clipped ratio.
        value: Weight of the critic's loss.
        entropy: Weight of the policy's entropy, which is maximised.
        gamma, gae_lambda: Discount per window, and that of the advantage estimator.
        hidden: Units of each hidden layer.
        span: Most that a boundary leaves home, as a share of the load.
        noise: Spread of the exploration at the start, as a share of the load; learnt from there.
        dual: Rule of the multipliers.
        step_size: Of `gradient`, per unit of relative shortfall.
        proportional, integral, derivative: Gains of `pid`.
        relative: Steps grow with the multiplier, which may have to span orders of magnitude.
        start: Multipliers at the start. At 0 a policy that starts near its limits first unlearns to keep them.
        margin: Part of each limit that training leaves unused; the judgements use all of it.
        validate_every: Iterations between two judgements of the policy.
        validation_traffics: Episodes of each judgement, always the same, and never trained on.
        seed: Of everything.
    """

    iterations: int = 120
    traffics: int = 4
    copies: int = 4
    epochs: int = 4
    minibatches: int = 4
    lr: float = 5e-3
    clip: float = 0.2
    value: float = 0.5
    entropy: float = 0.0
    gamma: float = 0.9
    gae_lambda: float = 0.95
    hidden: int = 32
    span: float = 0.3
    noise: float = 0.05
    dual: Literal["gradient", "pid"] = "pid"
    step_size: float = 0.3
    proportional: float = 1.0
    integral: float = 0.3
    derivative: float = 0.0
    relative: bool = True
    start: float = 5.0
    margin: float = 0.02
    validate_every: int = 5
    validation_traffics: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("iterations", "traffics", "copies", "epochs", "minibatches", "hidden", "validate_every")
        for name in (*counts, "validation_traffics"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in ("lr", "clip", "span", "noise"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive; got {getattr(self, name)}")
        for name in ("gamma", "gae_lambda", "margin"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie in [0, 1]; got {getattr(self, name)}")
        if self.margin == 1:
            raise ConfigError("margin must leave something of the limits; got 1")
        self.rule()

    def rule(self) -> Dual:
        """The rule of the multipliers."""
        if self.dual == "gradient":
            return GradientDual(step_size=self.step_size, relative=self.relative, start=self.start)
        return PidDual(
            proportional=self.proportional,
            integral=self.integral,
            derivative=self.derivative,
            relative=self.relative,
            start=self.start,
        )
