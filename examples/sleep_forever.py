"""Do nothing until somebody cancels it."""

import time

print("sleeping")
while True:
    time.sleep(3600)
