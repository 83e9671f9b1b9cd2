"""Program that `executable.sh` runs as the browser: it becomes the browser.

The kernel ends the browser with its parent, Playwright's driver. A browser without its driver ends
by itself, unless it hangs. The browser's child processes end with the browser.
"""

import os
import sys

from catlog_scrapy.processes import die_with_parent

if __name__ == "__main__":
    die_with_parent(os.getppid())
    browser = os.environ["BROWSER_EXECUTABLE"]
    os.execv(browser, [browser, *sys.argv[1:]])
