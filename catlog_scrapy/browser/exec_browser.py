"""`executable.sh` runs this as the browser: it becomes the browser, and dies with who started it.

A browser that nobody speaks to any more ends by itself, but not where it hangs. What it has started
ends with it.
"""

import os
import sys

from catlog_scrapy.processes import die_with_parent

if __name__ == "__main__":
    die_with_parent(os.getppid())
    browser = os.environ["CATLOG_BROWSER"]
    os.execv(browser, [browser, *sys.argv[1:]])
