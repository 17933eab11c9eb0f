"""Run a command and print its exit code, wall time and peak memory as JSON on the last line of stderr.

A process of its own, because Linux carries the peak memory of the process that forks over into the
new one: started from a Python that holds a model, every command would seem to need gigabytes.
"""
import json
import os
import sys
import time

if __name__ == "__main__":
    began = time.monotonic()
    pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
    _, status, usage = os.wait4(pid, 0)
    print(json.dumps({"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - began,
                      "peak_rss_bytes": usage.ru_maxrss * 1024}), file=sys.stderr)
