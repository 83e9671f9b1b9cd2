"""Error of a response that is not complete."""

from scrapy.exceptions import DownloadFailedError


class TruncatedResponse(DownloadFailedError):
    """Response that is not complete, raised by TruncationMiddleware.

    `tolerance` names the tolerance that counts the response: `truncated`, or `without_length` for
    a body that may be complete.
    """

    def __init__(self, url: str, fault: str, tolerance: str = "truncated") -> None:
        super().__init__(f"the response of {url} is truncated: {fault}")
        self.tolerance = tolerance
