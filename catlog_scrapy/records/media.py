"""Markers of record fields that hold links to stored images and files."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImagesOf:
    """Marker of a field that gets links to the stored images of the URLs in the field `urls`.

    Annotate `images: Annotated[list[str], ImagesOf("image_urls")] = []` for a list of URLs, and
    `image: Annotated[str | None, ImagesOf("image_url")] = None` for a single URL. The spider yields
    absolute URLs and leaves the annotated field empty. An image that cannot be stored is left out
    of a list; a single link is then None.
    """

    urls: str


@dataclass(frozen=True, slots=True)
class FilesOf:
    """Marker of a field that gets links to stored files of any type; see ImagesOf."""

    urls: str
