"""Takes from the queue as many as there are free slots."""

from collections import deque
from typing import Any

from scrapyd.config import Config
from scrapyd.interfaces import IPoller
from scrapyd.utils import get_spider_queues
from twisted.internet.defer import Deferred
from zope.interface import implementer

from catlog_scrapy.fleet.coalescing import CoalescingRunner
from catlog_scrapy.fleet.node import node_of

# In scrapyd's words a message: what the launcher is to run.
Message = dict[str, Any]


@implementer(IPoller)
class Poller:
    """Claims in a thread, whenever scrapyd's timer says so or a slot becomes free.

    Nothing that it meets ends it: scrapyd's timer stops for good where a poll fails.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.node = node_of(config)
        self.waiting: deque[Deferred[Message]] = deque()
        self.polling = CoalescingRunner(
            self.node.poll, arguments=lambda: (len(self.waiting),), then=self._hand_out
        )
        self.update_projects()

    def next(self) -> "Deferred[Message]":
        """A free slot: what is claimed for it comes through the answer."""
        slot: Deferred[Message] = Deferred()
        self.waiting.append(slot)
        return slot

    def poll(self) -> None:
        """Poll now; if that is going on, then once more."""
        self.polling()

    def _hand_out(self, claims: list[Any]) -> None:
        for claimed, zygote in claims:
            self.waiting.popleft().callback({"claim": claimed, "zygote": zygote})

    def update_projects(self) -> None:
        """A version was added or deleted: look again."""
        self.node.projects_changed()
        self.queues = get_spider_queues(self.config)
