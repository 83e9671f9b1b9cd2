"""Record types with media fields, and the folder that stores media."""

from io import BytesIO
from pathlib import Path
from typing import Annotated

import pytest

from catlog_scrapy.pipelines.media import link_prefix
from catlog_scrapy.pipelines.media_stores import AtomicFilesStore
from catlog_scrapy.records import FilesOf, ImagesOf, Record
from catlog_scrapy.records.record import RecordTypeError


def test_media_fields_of_a_record_type() -> None:
    class Thing(Record, key="id", view="things"):
        id: int
        image_url: str
        image: Annotated[str | None, ImagesOf("image_url")] = None
        manual_urls: list[str]
        manuals: Annotated[list[str], FilesOf("manual_urls")] = []

    assert Thing.media_fields(ImagesOf) == {"image": "image_url"}
    assert Thing.media_fields(FilesOf) == {"manuals": "manual_urls"}
    types = {field["name"]: field["type"] for field in Thing.sql_fields()}
    assert (types["image"], types["manuals"]) == ("text", "jsonb")


def test_media_of_an_unknown_field_is_refused() -> None:
    with pytest.raises(RecordTypeError, match="Thing has no field 'image_ulr' for its media"):

        class Thing(Record, key="id", view="things"):
            id: int
            image: Annotated[str | None, ImagesOf("image_ulr")] = None


def test_killed_process_leaves_no_partial_media_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AtomicFilesStore(tmp_path)
    store.persist_file("full/a.png", BytesIO(b"former"), None)
    write_bytes = Path.write_bytes

    def killed(path: Path, data: bytes) -> int:
        write_bytes(path, data[:3])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", killed)
    for path in ("full/a.png", "full/b.png"):
        with pytest.raises(KeyboardInterrupt):
            store.persist_file(path, BytesIO(b"newer"), None)
    assert (tmp_path / "full/a.png").read_bytes() == b"former"
    assert store.stat_file("full/b.png", None) == {}


@pytest.mark.parametrize(
    ("url", "store", "prefix"),
    [
        (None, "/srv/media", ""),
        (None, "s3://shop/media/", "s3://shop/media/"),
        (None, "ftp://someone:password@host:21/media", ""),
        ("https://cdn.example", "s3://shop/media/", "https://cdn.example/"),
        ("https://cdn.example/", "/srv/media", "https://cdn.example/"),
    ],
)
def test_media_link_prefix(url: str | None, store: str, prefix: str) -> None:
    assert link_prefix(url, store) == prefix
