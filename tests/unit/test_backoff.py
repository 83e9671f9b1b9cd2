"""Backoff: the delays of failed instances."""

import pytest

from catlog_scrapy.scheduling.backoff import Backoff

MIDDLE = 0.5


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 10), (2, 20), (3, 40), (6, 320), (7, 600), (100_000, 600)]
)
def test_backoff_doubles_with_every_failure_up_to_the_cap(failures: int, seconds: float) -> None:
    assert Backoff(base=10, cap=600).delay(failures, MIDDLE) == pytest.approx(seconds)


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 90), (0.5, 100), (1.0, 110)])
def test_jitter_spreads_the_backoff_by_a_tenth(chance: float, seconds: float) -> None:
    assert Backoff(base=100, cap=600).delay(1, chance) == pytest.approx(seconds)


def test_backoff_without_a_base_is_zero() -> None:
    assert Backoff(base=0, cap=600).delay(5, MIDDLE) == 0
