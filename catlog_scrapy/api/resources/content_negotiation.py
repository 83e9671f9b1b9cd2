"""Content negotiation by the header `Accept` (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence


def preferred_media_type(accept: str, offered: Sequence[str]) -> str | None:
    """Return the media type of *offered* with the highest quality in *accept*; None for no match.

    Among equal qualities the order in *accept* decides, then the order in *offered*.
    """
    ranges: dict[str, tuple[float, int]] = {}
    for place, part in enumerate(accept.split(",")):
        name, *parameters = (word.strip().lower() for word in part.split(";"))
        if name:
            ranges.setdefault(name, (_quality(parameters), -place))

    def quality_of(media_type: str) -> tuple[float, int]:
        for range_ in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
            if range_ in ranges:
                return ranges[range_]
        return 0, 0

    best = max(offered, key=quality_of)
    return best if quality_of(best)[0] > 0 else None


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0
    return 1
