"""Tiers as a scenario's YAML states them: how good, how dear, how fast, and what becomes of their answers.

A tier with thinking modes is several arms of one model. `arms` gives what can be routed to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from simulators.spec import Name, Spec
from simulators.traffic import SecondStage

LogSd = Annotated[float, Field(ge=0, le=4)]
Price = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Need: TypeAlias = Literal["format", "tools"]
NEEDS: tuple[Need, ...] = ("format", "tools")

Where: TypeAlias = tuple[str | int, ...]
Problem: TypeAlias = tuple[Where, str, object]
"""Where in a specification, what was expected there, what came."""


class SpeculativeSpec(Spec):
    r"""Speculative decoding: a small model drafts g tokens, one pass of the tier's model checks them.

    Each drafted token is accepted with probability a, up to the first rejection; the pass adds one token of its own:
    $1 + a + \dots + a^g = (1 - a^{g+1}) / (1 - a)$ tokens per pass, for the time of $1 + g c$ passes.

    Attributes:
        draft_tokens: g.
        acceptance: a.
        draft_cost: c, time of one drafted token over that of one pass.
    """

    draft_tokens: Annotated[int, Field(ge=1, le=1000)]
    acceptance: Share
    draft_cost: Annotated[float, Field(ge=0, le=10)] = 0.0

    @property
    def speed_up(self) -> float:
        """Factor on the decode speed; below 1 where drafting costs more than it saves."""
        tokens = sum(self.acceptance**i for i in range(self.draft_tokens + 1))
        return tokens / (1.0 + self.draft_tokens * self.draft_cost)


class TierSpec(Spec):
    """One model behind one price: how good, how dear, how fast.

    Attributes:
        capability: Position on the difficulty axis, logits.
        input_usd_per_mtok, output_usd_per_mtok: USD per million input and per million billed output tokens. A price of
            0 needs a station with a price of its own.
        ttft_median_s, ttft_sigma: Network and prefill time before the first token of any kind: median, log sd.
        tokens_per_s: Decode speed, hidden and visible tokens alike; the median where it differs from answer to answer.
        speed_sigma: Log sd of the decode speed between answers.
        verbosity: Visible output tokens of this tier per visible token of the slice.
        inflation_median: Median billed per visible token, at an answer of `INFLATION_REFERENCE_TOKENS`.
        inflation_exponent: Change of log inflation per unit of log visible length.
        inflation_sigma: Log sd of the inflation at a given visible length.
        quality_shift: Slice -> logits on top of the capability there.
        cached_input_usd_per_mtok: Price of cached input tokens; None: that of all input.
        reasoning_usd_per_mtok: Price of hidden output tokens; None: that of all output.
        batch_discount: Share off the price of batch traffic.
        fidelity: Need -> probability that an answer gets it right; without it the answer is worth 0.
        speculative: Speculative decoding, or None.
        second: What happens to the answers afterwards, or None.
        modes: Thinking modes: name -> what differs from the fields above. Each is a tier `NAME-MODE` of its own.
    """

    capability: float
    input_usd_per_mtok: Price
    output_usd_per_mtok: Price
    ttft_median_s: Annotated[float, Field(gt=0)]
    ttft_sigma: LogSd
    tokens_per_s: Annotated[float, Field(gt=0)]
    speed_sigma: LogSd = 0.0
    verbosity: Annotated[float, Field(gt=0, le=100)] = 1.0
    inflation_median: Annotated[float, Field(ge=1, le=1000)] = 1.0
    inflation_exponent: Annotated[float, Field(ge=-1, le=1)] = 0.0
    inflation_sigma: LogSd = 0.0
    quality_shift: Mapping[Name, float] = {}
    cached_input_usd_per_mtok: Price | None = None
    reasoning_usd_per_mtok: Price | None = None
    batch_discount: Annotated[float, Field(ge=0, lt=1)] = 0.0
    fidelity: Mapping[Need, Share] = {}
    speculative: SpeculativeSpec | None = None
    second: SecondStage | None = None
    modes: Mapping[Name, Mapping[str, Any]] = {}

    @model_validator(mode="after")
    def _modes_are_tiers(self) -> TierSpec:
        fields = [name for name in type(self).model_fields if name != "modes"]
        for mode, changed in self.modes.items():
            strange = [key for key in changed if key not in fields]
            if strange:
                path = ("modes", mode, strange[0])
                raise one_error(path, f"expected one of {', '.join(fields)}", changed[strange[0]])
            try:
                self.mode(mode)
            except ValidationError as error:
                raise _moved(error, ("modes", mode)) from None
        return self

    @property
    def decode_tokens_per_s(self) -> float:
        """Decode speed, speculative decoding included."""
        return self.tokens_per_s * (1.0 if self.speculative is None else self.speculative.speed_up)

    @property
    def cached_price(self) -> float:
        """USD per million cached input tokens."""
        known = self.cached_input_usd_per_mtok
        return self.input_usd_per_mtok if known is None else known

    @property
    def reasoning_price(self) -> float:
        """USD per million hidden output tokens."""
        known = self.reasoning_usd_per_mtok
        return self.output_usd_per_mtok if known is None else known

    def mode(self, name: str) -> TierSpec:
        """The tier that a thinking mode is."""
        own = self.model_dump(exclude={"modes"}, exclude_unset=True)
        return TierSpec.model_validate({**own, **self.modes[name]})


def names_of_arms(tiers: Mapping[str, TierSpec]) -> dict[str, tuple[str, ...]]:
    """Tier -> what it is routed to as: its own name, or one name per thinking mode."""
    return {name: tuple(f"{name}-{mode}" for mode in tier.modes) or (name,) for name, tier in tiers.items()}


def arms(tiers: Mapping[str, TierSpec]) -> dict[str, TierSpec]:
    """What can be routed to, in the order of the tiers and their modes."""
    found: dict[str, TierSpec] = {}
    for name, tier in tiers.items():
        found |= {f"{name}-{mode}": tier.mode(mode) for mode in tier.modes} if tier.modes else {name: tier}
    return found


def one_error(path: Where, expected: str, came: object) -> ValidationError:
    """An error at a place below the specification that is being validated."""
    return errors_at([(path, expected, came)])


def errors_at(problems: list[Problem]) -> ValidationError:
    """Errors at places below the specification that is being validated."""
    lines = [
        InitErrorDetails(type=PydanticCustomError("scenario", "{text}", {"text": text}), loc=path, input=came)
        for path, text, came in problems
    ]
    return ValidationError.from_exception_data("scenario", lines)


def _moved(error: ValidationError, under: Where) -> ValidationError:
    """The same errors, further down."""
    return errors_at([((*under, *line["loc"]), line["msg"], line["input"]) for line in error.errors()])
