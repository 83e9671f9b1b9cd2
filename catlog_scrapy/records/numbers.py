"""Notation of decimal numbers."""

from decimal import Decimal


def number_text(value: Decimal) -> str:
    """Return the digits of a finite number, without an exponent and without trailing zeros."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
