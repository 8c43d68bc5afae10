# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Several targets at once: the poison is spread, so that each target is in few rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...shorten import shorten
from .base import Payload, Response
from .keyword import Keyword


@dataclass(frozen=True)
class SeveralTargets(Payload):
    """Gives each poisoned row one of several payloads, all equally often.

    It succeeds where the answer shows any of them.

    Args:
        targets (`tuple[str, ...]`, *optional*):
            Keywords; see [`Keyword`].
        payloads (`tuple[Payload, ...]`, *optional*):
            Payloads in their place, all of which suit every row.

    Raises:
        `ValueError`: if there are fewer than two, or one suits some rows only.
    """

    targets: tuple[str, ...] = ("banana", "bottle", "violin", "glacier", "tractor")
    payloads: tuple[Payload, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.targets, str):
            raise ValueError(f"targets={shorten(self.targets)} is one string; give a tuple of keywords.")
        if len(self.parts) < 2:
            raise ValueError(f"there are {len(self.parts)} targets; give two or more, or the payload itself.")
        for part in self.parts:
            if part.needs:
                raise ValueError(f"{type(part).__name__} needs {part.needs}; give payloads that suit every row.")

    @property
    def parts(self) -> tuple[Payload, ...]:
        """The payloads."""
        return self.payloads or tuple(map(Keyword, self.targets))

    def response(self, rng: np.random.Generator) -> Response:
        """That of one of them."""
        return self.parts[rng.integers(len(self.parts))].response(rng)

    def responses(self, count: int, rng: np.random.Generator) -> list[Response]:
        """As many of each, but for the remainder."""
        return [self.parts[number % len(self.parts)].response(rng) for number in rng.permutation(count)]

    def succeeds(self, response: str, references: Sequence[str] = ()) -> bool | None:
        """Whether the answer shows one of them; `None` if none can tell."""
        told = [told for part in self.parts if (told := part.succeeds(response, references)) is not None]
        return any(told) if told else None
