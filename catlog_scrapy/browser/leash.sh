#!/bin/sh
# Playwright starts one executable, and puts its own arguments first.
exec "$LEASHED_PYTHON" -m catlog_scrapy.browser.leash "$@"
