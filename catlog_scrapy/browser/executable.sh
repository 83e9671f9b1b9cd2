#!/bin/sh
# Playwright starts one executable, and puts its own arguments first.
exec "$CATLOG_BROWSER_PYTHON" -m catlog_scrapy.browser.exec_browser "$@"
