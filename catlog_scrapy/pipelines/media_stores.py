"""Stores of media files: Scrapy's own, with atomic writes and known failures."""

import mimetypes
from io import BytesIO
from typing import Any
from uuid import uuid4

from scrapy.pipelines.files import FSFilesStore
from scrapy.utils.defer import ensure_awaitable
from twisted.internet.defer import Deferred, maybeDeferred


class MediaNotStored(Exception):
    """File that the store did not accept; raised by MediaStore.

    The failure is not the source's, so the attempt fails and is retried.
    """


class AtomicFilesStore(FSFilesStore):
    """Scrapy's folder store, with atomic writes: a killed process leaves no partial file."""

    def persist_file(self, path: Any, buf: BytesIO, info: Any, *_: Any, **__: Any) -> None:
        """Write a temporary file, then rename it."""
        part = f"{path}.{uuid4().hex}.part"
        super().persist_file(part, buf, info)
        self._get_filesystem_path(part).replace(self._get_filesystem_path(path))


class MediaStore:
    """Wrapper of any Scrapy media store; `known` are the paths that the store was found to hold."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.known: set[str] = set()

    def stat_file(self, path: str, info: Any) -> "Deferred[Any]":
        """Return the store's data about *path*; empty if the file does not exist."""
        return maybeDeferred(self.store.stat_file, path, info).addCallback(self._remember, path)

    def _remember(self, stat: Any, path: str) -> Any:
        if stat:
            self.known.add(path)
        return stat

    async def persist_file(
        self, path: str, buf: BytesIO, info: Any, meta: Any = None, headers: Any = None
    ) -> None:
        """Store a file with the media type of its name. Raises MediaNotStored."""
        kind, _ = mimetypes.guess_type(path)
        headers = {"Content-Type": kind} if kind else None
        try:
            await ensure_awaitable(self.store.persist_file(path, buf, info, meta, headers))
        except Exception as error:  # the boundary to any store: it may raise anything
            raise MediaNotStored(f"{path} could not be stored: {error}") from error
