"""Batches of one executor are bounded by bytes."""

import asyncio

import pytest

from catlog_scrapy.api.executors.body_budget import BodyBudget
from catlog_scrapy.api.problems import Problem


async def hold(budget: BodyBudget, executor: str, size: int, until: asyncio.Event) -> None:
    async with budget.hold(executor, size):
        await until.wait()


def test_executor_waits_until_its_earlier_batches_are_stored() -> None:
    async def run() -> None:
        budget, stored = BodyBudget(100, 30), asyncio.Event()
        first = [asyncio.create_task(hold(budget, "a", 90, stored)) for _ in range(2)]
        await asyncio.sleep(0)
        third = asyncio.create_task(hold(budget, "a", 90, stored))
        other = asyncio.create_task(hold(budget, "b", 100, asyncio.Event()))
        await asyncio.sleep(0.05)
        assert not third.done()
        assert not other.done(), "another executor is inside, not waiting"
        assert budget._held == {"a": 180, "b": 100}
        stored.set()
        await asyncio.gather(*first, third)
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
        assert not budget._held

    asyncio.run(run())


def test_many_small_batches_of_an_executor_go_on_beside_each_other() -> None:
    async def run() -> None:
        budget, stored = BodyBudget(100, 30), asyncio.Event()
        tasks = [asyncio.create_task(hold(budget, "a", 10, stored)) for _ in range(16)]
        await asyncio.sleep(0.01)
        assert budget._held["a"] == 160
        stored.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())


def test_executor_that_never_ends_its_batches_gets_503() -> None:
    async def run() -> None:
        budget = BodyBudget(100, 0.05)
        async with budget.hold("a", 200):
            with pytest.raises(Problem) as refused:
                async with budget.hold("a", 1):
                    pass
        assert refused.value.status == 503
        async with budget.hold("a", 1):
            pass

    asyncio.run(run())
