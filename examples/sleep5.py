"""Sleep for five seconds and say where: something to fill slots with. Usage: sleep5.py [SECONDS]"""

import os
import sys
import time

seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
time.sleep(seconds)
print(f"slept {seconds:g} s on {os.environ.get('CMT_EXECUTOR', 'this machine')}")
