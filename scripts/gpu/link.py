"""The link between host and GPU, measured with plain torch copies; the GPU's memory, watched and filled."""
import threading
import time

import torch

BLOCK = 256 * 1024 * 1024
REPEATS = 8


def rates(index):
    """Bytes per second from page-locked memory: up, down, and two up for one down at the same time."""
    device = torch.device("cuda", index)
    host = [torch.zeros(BLOCK, dtype=torch.uint8).pin_memory() for _ in range(3)]
    there = [torch.zeros(BLOCK, dtype=torch.uint8, device=device) for _ in range(3)]
    streams = [torch.cuda.Stream(device) for _ in range(2)]

    def up(lane):
        with torch.cuda.stream(streams[0]):
            there[lane].copy_(host[lane], non_blocking=True)

    def down():
        with torch.cuda.stream(streams[1]):
            host[2].copy_(there[2], non_blocking=True)

    def rate(n_blocks, work):
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        for _ in range(REPEATS):
            work()
        torch.cuda.synchronize(device)
        return n_blocks * REPEATS * BLOCK / (time.perf_counter() - started)

    def both():
        up(0)
        down()
        up(1)

    for work in (both, both):
        work()
    result = rate(1, lambda: up(0)), rate(1, down), rate(3, both)
    del host, there
    torch.cuda.empty_cache()
    return result


class Watch:
    """The most memory that was in use on a GPU while it watched, beyond what was in use before."""

    def __init__(self, index):
        self.index, self.peak, self._stop = index, 0, threading.Event()

    def __enter__(self):
        self._before = torch.cuda.mem_get_info(self.index)[0]
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self):
        while not self._stop.wait(0.002):
            self.peak = max(self.peak, self._before - torch.cuda.mem_get_info(self.index)[0])

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


class Holder:
    """Holds all of a GPU's free memory but so many bytes."""

    def __init__(self, index, leave):
        self._held = []
        # In several blocks, since one of all that is free can't always be had.
        while (free := torch.cuda.mem_get_info(index)[0]) > leave + BLOCK:
            size = max((free - leave) // 2, BLOCK)
            self._held.append(torch.empty(size, dtype=torch.uint8, device=f"cuda:{index}"))

    def release(self):
        """Gives it back."""
        self._held.clear()
        torch.cuda.empty_cache()
