"""Order of a crawl's rows: as the spider has yielded their items.

Items in Scrapy's pipelines overtake each other: a picture is downloaded, a pipeline awaits. Of one
key twice, the last row counts, which has to be that of the last item.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from catlog_scrapy.crawl.backpressure import Gate
from catlog_scrapy.records.validation import Row

# Rows that wait for those of an earlier item; then further items wait.
MAX_WAITING_ROWS = 10_000
MAX_WAITING_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class Ticket:
    """Place of an item in the order, with what the item is to write."""

    rows: list[Row] = field(default_factory=list)
    cursor: str | None = None
    is_closed: bool = False


@dataclass(frozen=True, slots=True)
class TicketedItem:
    """Item that has its place already, on its way to Scrapy's pipelines."""

    item: Any
    ticket: Ticket


# Ticket of the item that the current task processes.
current_ticket: ContextVar[Ticket | None] = ContextVar("current_ticket", default=None)


class ItemOrder:
    """Queue of the items of one crawl that Scrapy processes.

    *write* writes the rows and the cursor of an item. `gate` is closed while too many rows wait:
    only items without a place pass it, so the first item of the queue never waits for its own.
    """

    def __init__(self, write: Callable[[list[Row], str | None], None]) -> None:
        self._write = write
        self.gate = Gate()
        self.tickets: deque[Ticket] = deque()
        self._waiting_rows = 0
        self._waiting_bytes = 0

    def open(self) -> Ticket:
        """Return the next place; `close` has to follow."""
        ticket = Ticket()
        self.tickets.append(ticket)
        return ticket

    def put(self, rows: list[Row], cursor: str | None = None) -> None:
        """Write the rows of the current item as soon as all earlier items have been written."""
        ticket = current_ticket.get()
        if ticket is None:
            if not self.tickets:
                self._write(rows, cursor)
                return
            ticket = self.open()
            ticket.is_closed = True
        ticket.rows += rows
        ticket.cursor = cursor or ticket.cursor
        if ticket is not self.tickets[0]:
            self._waiting_rows += len(rows)
            self._waiting_bytes += sum(len(data or b"") for _, _, data, _ in rows)
            self._set_gate()

    def close(self, ticket: Ticket) -> None:
        """Write all items up to the first one that is still processed."""
        ticket.is_closed = True
        if not self.tickets[0].is_closed:
            return
        while self.tickets and self.tickets[0].is_closed:
            first = self.tickets.popleft()
            if first.rows or first.cursor:
                self._write(first.rows, first.cursor)
        self._waiting_rows = sum(len(waiting.rows) for waiting in self.tickets)
        self._waiting_bytes = sum(
            len(data or b"") for waiting in self.tickets for _, _, data, _ in waiting.rows
        )
        self._set_gate()

    def close_all(self) -> None:
        """Write what is left of items that never reached the pipelines' end."""
        for ticket in self.tickets:
            ticket.is_closed = True
        if self.tickets:
            self.close(self.tickets[0])

    def _set_gate(self) -> None:
        if self._waiting_rows >= MAX_WAITING_ROWS or self._waiting_bytes >= MAX_WAITING_BYTES:
            self.gate.close()
        elif not self.gate.is_open:
            self.gate.open()


@contextmanager
def ordered(order: ItemOrder | None, item: Any) -> Iterator[Any]:
    """Let the pipelines of the current task write at the item's place; yield the item itself."""
    if order is None or type(item) is not TicketedItem:
        yield item
        return
    token = current_ticket.set(item.ticket)
    try:
        yield item.item
    finally:
        current_ticket.reset(token)
        order.close(item.ticket)
