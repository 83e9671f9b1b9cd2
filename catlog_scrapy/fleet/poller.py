"""Poller: claims as many instances as the node has free slots."""

from collections import deque
from typing import Any

from scrapyd.config import Config
from scrapyd.interfaces import IPoller
from scrapyd.utils import get_spider_queues
from twisted.internet.defer import Deferred
from zope.interface import implementer

from catlog_scrapy.fleet.coalescing import CoalescingRunner
from catlog_scrapy.fleet.node import node_of

# scrapyd's term for the description of a job: here a claim and the zygote that is to run it.
Message = dict[str, Any]


@implementer(IPoller)
class Poller:
    """Claims in a thread, at scrapyd's timer and whenever a slot becomes free.

    A poll never fails: scrapyd's timer would stop for good.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.node = node_of(config)
        self.free_slots: deque[Deferred[Message]] = deque()
        self.polling = CoalescingRunner(
            self.node.poll, arguments=lambda: (len(self.free_slots),), then=self._hand_out
        )
        self.update_projects()

    def next(self) -> "Deferred[Message]":
        """Offer a free slot. The result fires with the message of the next claim."""
        slot: Deferred[Message] = Deferred()
        self.free_slots.append(slot)
        return slot

    def poll(self) -> None:
        """Poll now, or once more after a poll that is under way."""
        self.polling()

    def _hand_out(self, claims: list[Any]) -> None:
        for claim, zygote in claims:
            self.free_slots.popleft().callback({"claim": claim, "zygote": zygote})

    def update_projects(self) -> None:
        """Look at the projects again: a version was added or deleted."""
        self.node.projects_changed()
        self.queues = get_spider_queues(self.config)
