"""Scrapy's command line that writes its peak memory: `python -m benchmarks.watched FILE WORD ...`.

The `ru_maxrss` of an ended process would not do: Linux passes the peak of its parent on to it.
"""

import atexit
import sys
from pathlib import Path

from scrapy.cmdline import execute

from benchmarks.project.stopwatch import peak_memory

if __name__ == "__main__":
    path = Path(sys.argv[1])
    atexit.register(lambda: path.write_text(str(peak_memory())))
    execute(["scrapy", *sys.argv[2:]])
