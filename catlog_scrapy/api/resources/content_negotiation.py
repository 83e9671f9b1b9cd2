"""What a client would rather have: its `Accept`."""

from collections.abc import Sequence


def preferred_media_type(accept: str, offered: Sequence[str]) -> str | None:
    """The media type of *offered* that *accept* (RFC 9110, 12.5.1) values most; None where none.

    Of those that it values as much, the one that it names first; then the one offered first.
    """
    ranges: dict[str, tuple[float, int]] = {}
    for place, part in enumerate(accept.split(",")):
        name, *parameters = (word.strip().lower() for word in part.split(";"))
        if name:
            ranges.setdefault(name, (_quality(parameters), -place))

    def valued(media_type: str) -> tuple[float, int]:
        for known in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
            if known in ranges:
                return ranges[known]
        return 0, 0

    best = max(offered, key=valued)
    return best if valued(best)[0] > 0 else None


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0
    return 1
