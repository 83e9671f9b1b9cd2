"""Pictures of the demo: valid, distinct and stable."""

import hashlib
from io import BytesIO

from PIL import Image

from catlog_scrapy.demo import fuel
from catlog_scrapy.demo.pictures import SIZE, picture
from catlog_scrapy.demo.server import DemoServer


def test_demo_picture_is_a_valid_image() -> None:
    reply = picture("images/fuel-1.png")
    assert reply.content_type == "image/png"
    image = Image.open(BytesIO(reply.body))
    image.load()
    assert (image.format, image.mode, image.size) == ("PNG", "RGBA", (SIZE, SIZE))
    assert (
        hashlib.sha256(reply.body).hexdigest()
        == "ed526c1f060acab7aa62d5c5d60bd0f3f959c1bbc3f88a786ab79259fb0dcb95"
    )


def test_linked_demo_pictures_are_served_and_distinct() -> None:
    linked = [url for station in fuel.stations(0) for url in station["image_urls"]]
    for names, kind in ((fuel.FUELS, "fuel"), (fuel.SERVICES, "service")):
        linked += [entry["icon"] for entry in fuel.references(names, kind)]
    server = DemoServer()
    replies = [server.respond("GET", f"/fuel/{path}", {}, b"") for path in linked]
    assert len({reply.body for reply in replies if reply}) == len(linked) == 16
    assert server.respond("GET", "/fuel/images/fuel-9.png", {}, b"") is None
