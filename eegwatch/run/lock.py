"""A record lock for the life of a process, and the query for its holder.

A POSIX record lock is free the moment its holder dies, whatever children it leaves. Any close of the file by its holder
drops it, so the holder opens it exactly once, and everyone else asks with F_GETLK, which takes nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import struct
import sys
from pathlib import Path

_LINUX, _DARWIN = "hhqqi4x", "qqihh"  # struct flock on 64-bit Linux (type whence start len pid) and on macOS
_OURS = re.compile(rb"\d{0,20}\n?")  # what a lock file holds: a pid, or nothing


class Locked(Exception):
    """Another process holds the lock; `args[0]` is its pid, or None where the system does not say."""


def take_lock(path: Path) -> int:
    """Hold the lock for the life of this process; returns the descriptor. Raises Locked, OSError.

    Never through a symbolic link; and a file that holds anything but a pid keeps what it holds.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "is a symbolic link; remove it", str(path)) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file; remove it", str(path))
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _OURS.fullmatch(os.pread(fd, 64, 0)):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        held = error.errno in (errno.EACCES, errno.EAGAIN)
        os.close(fd)
        if held:
            raise Locked(lock_holder(path)) from None
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, f"{error.strerror}: make room", str(path)) from None
        raise
    return fd


def lock_holder(path: Path) -> int | None:
    """The pid of the lock's holder, as the kernel reports it; None without a holder. Raises OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # reading is enough to ask
    except FileNotFoundError:
        return None
    try:
        if sys.platform == "darwin":
            query = struct.pack(_DARWIN, 0, 0, 0, fcntl.F_WRLCK, 0)
            _, _, pid, kind, _ = struct.unpack(_DARWIN, fcntl.fcntl(fd, fcntl.F_GETLK, query))
        else:
            query = struct.pack(_LINUX, fcntl.F_WRLCK, 0, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(_LINUX, fcntl.fcntl(fd, fcntl.F_GETLK, query))
    finally:
        os.close(fd)
    return None if kind == fcntl.F_UNLCK else int(pid)


def same_file(fd: int, path: Path) -> bool:
    """Is the open file still the one of this name? Raises OSError if nobody can tell (a network mount that is away)."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return False
