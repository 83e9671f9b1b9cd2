"""Text of rejected items, as `scrapy status` shows it."""

import json

import pytest

from catlog_scrapy.commands.status import readable


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (json.dumps("René 李 😀"), '"René 李 😀"'),
        (json.dumps({"é": "a\nb"}), r'{"é": "a\nb"}'),
        (json.dumps("\x1b[31m\x00\x9b"), r'"\u001b[31m\u0000\u009b"'),
        (json.dumps(r"C:\u00e9"), r'"C:\\u00e9"'),
        (json.dumps("\udce9 \ud800"), r'"\udce9 \ud800"'),
        (json.dumps("Ren😀")[:9], r'"Ren\ud83'),
        (json.dumps("Ren😀")[:11], r'"Ren\ud83d\u'[:11]),
        ("<Loop that cannot be written as JSON>", "<Loop that cannot be written as JSON>"),
        (r"\ud8zz\udczz", r"\ud8zz\udczz"),
    ],
)
def test_printable_characters_of_rejected_items_are_decoded(data: str, shown: str) -> None:
    assert readable(data) == shown
