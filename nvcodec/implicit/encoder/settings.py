"""How much work an encode in the implicit representation takes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EFFORTS", "Effort"]


@dataclass(frozen=True)
class Effort:
    """``epochs``: over all frames while the model is fitted; ``tuning``: as a share of them, how many more on quantised
    weights. ``rate``: learning rate of the weights. ``pruned``: share of the weights that are set to zero."""

    epochs: int
    tuning: float = 0.25
    rate: float = 4e-3
    tuning_rate: float = 1e-3
    batch: int = 2
    pruned: float = 0.1
    priced: bool = True
    """Whether bits count while it is tuned, and not only the error."""
    bits: int = 12
    """Of activations."""

    @property
    def tuning_epochs(self) -> int:
        return max(2, round(self.epochs * self.tuning))


EFFORTS = {"fast": Effort(60), "medium": Effort(150), "slow": Effort(300)}
