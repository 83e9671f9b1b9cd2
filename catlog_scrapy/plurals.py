"""Numbers with their nouns."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return *count* with its noun in the right number: "1 item", "2 items".

    >>> counted(1, "item"), counted(0, "item"), counted(2, "query", "queries")
    ('1 item', '0 items', '2 queries')
    """
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"
