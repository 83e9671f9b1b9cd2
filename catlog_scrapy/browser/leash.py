"""`leash.sh` runs this as the browser: it becomes the browser, and dies with who started it.

A browser notices by itself that nobody speaks to it any more, unless it hangs.
"""

import os
import sys

from catlog_scrapy.fleet.processes import die_with

if __name__ == "__main__":
    die_with(os.getppid())
    browser = os.environ["LEASHED_BROWSER"]
    os.execv(browser, [browser, *sys.argv[1:]])
