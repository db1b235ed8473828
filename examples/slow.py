"""A line a second for a while: something to follow with `cmt logs -f`. Usage: slow.py [SECONDS]"""

import sys
import time

seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
for second in range(1, seconds + 1):
    time.sleep(1)
    print(f"{second} of {seconds} seconds")
