"""Which fields of a record get the links of kept images and files."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImagesOf:
    """The field gets the links of the images that are kept of the URLs in the field `urls`.

    `images: Annotated[list[str], ImagesOf("image_urls")] = []` for a list of URLs,
    `image: Annotated[str | None, ImagesOf("image_url")] = None` for a single one. The spider yields
    absolute URLs and leaves the field itself alone. What could not be kept is left out, or None.
    """

    urls: str


@dataclass(frozen=True, slots=True)
class FilesOf:
    """The same for files of any sort, which nobody looks into."""

    urls: str
