"""Test tools for spiders: saved pages and golden items."""
