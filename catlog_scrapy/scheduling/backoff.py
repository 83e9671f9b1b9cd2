"""Backoff of failed instances."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Exponential backoff with jitter, in seconds: `min(cap, base * 2^(failures-1)) * (1 ± 10 %)`.

    The jitter spreads the retries of instances that failed together (Brooker, "Exponential Backoff
    And Jitter", 2015).
    """

    base: float
    cap: float

    def delay(self, failures: int, chance: float) -> float:
        """Return the seconds to wait after *failures* (at least 1); *chance* is from [0, 1)."""
        # 2^1023 is the largest power of two that a float holds.
        growth = 2.0 ** min(failures - 1, 1023)
        return min(self.cap, self.base * growth) * (0.9 + 0.2 * chance)
