"""Count primes the slow, CPU-heavy way, and say so on the way. Usage: primes.py [LIMIT]"""

import sys
import time

limit = int(sys.argv[1]) if len(sys.argv) > 1 else 1_200_000
began = time.perf_counter()
primes: list[int] = []
report = limit // 8
for number in range(2, limit):
    for prime in primes:
        if prime * prime > number:
            primes.append(number)
            break
        if number % prime == 0:
            break
    else:
        primes.append(number)
    if number % report == 0:
        print(f"{len(primes):6} primes below {number:7}, the last is {primes[-1]}")
print(f"{len(primes)} primes below {limit} in {time.perf_counter() - began:.1f} s")
