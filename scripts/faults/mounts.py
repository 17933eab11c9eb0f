"""Small file systems to break things on: tmpfs, and ext4 in a file."""
import contextlib
import os
import subprocess
from pathlib import Path


def sh(*words):
    """Runs a command that must succeed, and gives its output."""
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@contextlib.contextmanager
def tmpfs(place, options):
    """A tmpfs mounted at `place`."""
    place = Path(place)
    place.mkdir(exist_ok=True)
    sh("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place))
    try:
        yield place
    finally:
        sh("umount", str(place))
        place.rmdir()


class Ext4:
    """An ext4 file system in a file of the size `size`, mounted at `place`."""

    def __init__(self, image, place, size):
        self.image, self.place, self.device = Path(image), Path(place), None
        self.place.mkdir(exist_ok=True)
        sh("truncate", "-s", size, str(self.image))
        sh("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self.image))
        self.device = sh("losetup", "--find", "--show", str(self.image))
        self.mount()

    def mount(self):
        """Mounts it; after a power cut the journal is replayed."""
        sh("mount", self.device, str(self.place))

    def umount(self):
        """Unmounts it."""
        sh("umount", str(self.place))

    def remove(self):
        """Takes it away."""
        self.umount()
        sh("losetup", "--detach", self.device)
        self.image.unlink()
        self.place.rmdir()


@contextlib.contextmanager
def ext4(image, place, size="24M"):
    """An [`Ext4`] that is removed at the end."""
    disk = Ext4(image, place, size)
    try:
        yield disk
    finally:
        disk.remove()


def free(place):
    """Bytes and inodes that are free."""
    stat = os.statvfs(place)
    return stat.f_bavail * stat.f_frsize, stat.f_favail
