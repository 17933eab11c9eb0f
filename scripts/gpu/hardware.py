"""What the hardware can do, measured with plain torch: the link between host and GPU, kernels, a disk; and the GPU's
memory, watched and filled."""
import os
import threading
import time

import torch

MIB = 1 << 20
BLOCK = 256 * MIB
REPEATS = 8
# A chunk of the engine: src/engine/device/memory.rs.
PIECE, PIECES = 65_536, 32


def rates(index, block, repeats=REPEATS):
    """Bytes per second from page-locked memory, in copies of `block`: up, down, two up for one down at the same time."""
    device = torch.device("cuda", index)
    host = [torch.zeros(block, dtype=torch.uint8).pin_memory() for _ in range(3)]
    there = [torch.zeros(block, dtype=torch.uint8, device=device) for _ in range(3)]
    streams = [torch.cuda.Stream(device) for _ in range(2)]

    def up(lane):
        with torch.cuda.stream(streams[0]):
            there[lane].copy_(host[lane], non_blocking=True)

    def down():
        with torch.cuda.stream(streams[1]):
            host[2].copy_(there[2], non_blocking=True)

    def both():
        up(0)
        down()
        up(1)

    def rate(n_blocks, work):
        work()
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        torch.cuda.synchronize(device)
        return n_blocks * repeats * block / (time.perf_counter() - started)

    result = rate(1, lambda: up(0)), rate(1, down), rate(3, both)
    del host, there
    torch.cuda.empty_cache()
    return result


def kernels(index, dtype, seconds=0.5):
    """Elements per second of both passes as src/engine/device/kernel.rs computes them, one stream, nothing copied."""
    device = torch.device("cuda", index)
    n = PIECES * PIECE
    raw = [torch.full((n,), 0.01, dtype=torch.float32, device=device).to(dtype) for _ in range(2)]
    wide = [torch.empty(n, dtype=torch.float64, device=device) for _ in range(2)]
    products = torch.empty(3, n, dtype=torch.float64, device=device)
    child = torch.empty(n, dtype=torch.float32, device=device).to(dtype)
    low = products[0].view(torch.int64)

    def chunk():
        for source, target in zip(raw, wide):
            target.copy_(source)
        for row, (a, b) in enumerate(((0, 1), (0, 0), (1, 1))):
            torch.mul(wide[a], wide[b], out=products[row])
        folded, width = products.view(3, PIECES, PIECE), PIECE
        while width > 1:
            width //= 2
            folded[:, :, :width].add_(folded[:, :, width:2 * width])
        for source, target, factor in zip(raw, wide, (0.4, 0.6)):
            target.copy_(source)
            target.mul_(factor)
        wide[0].add_(wide[1])
        if child.element_size() < 4:
            bits = wide[0].view(torch.int64)
            torch.bitwise_and(bits, (1 << 40) - 1, out=low)
            low.add_((1 << 40) - 1)
            bits.bitwise_or_(low).bitwise_and_(~((1 << 40) - 1))
        child.copy_(wide[0])

    for _ in range(3):
        chunk()
    torch.cuda.synchronize(device)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for _ in range(10):
            chunk()
        torch.cuda.synchronize(device)
        count += 10
    return count * n / (time.perf_counter() - started)


def write_rate(directory, size, threads=4):
    """Bytes per second into a new file of a directory, by as many threads as the tool writes with."""
    block = memoryview(os.urandom(MIB))
    path = os.path.join(directory, "write-rate")
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    blocks = size // MIB
    os.ftruncate(file, blocks * MIB)

    def write(first):
        for number in range(first, blocks, threads):
            os.pwrite(file, block, number * MIB)

    try:
        workers = [threading.Thread(target=write, args=(first,)) for first in range(threads)]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return blocks * MIB / (time.perf_counter() - started)
    finally:
        os.close(file)
        os.unlink(path)


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
