#!/bin/sh
# Playwright starts a single executable, and puts its own arguments first.
exec "$BROWSER_PYTHON" -m catlog_scrapy.browser.exec_browser "$@"
