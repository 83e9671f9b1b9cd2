"""Numbers with their nouns, and durations."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return *count* with its noun in the right number: "1 item", "2 items".

    >>> counted(1, "item"), counted(0, "item"), counted(2, "query", "queries")
    ('1 item', '0 items', '2 queries')
    """
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def duration(seconds: float) -> str:
    """Return a duration in the notation of the declarations, to two units.

    >>> duration(4.2), duration(200), duration(3900), duration(180000)
    ('4s', '3m20s', '1h05m', '2d02h')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
