"""Change the wall clock of selected processes with a preloaded library.

Linux has no namespace for the wall clock, and Debian's libfaketime changes sleeping processes in a way that breaks Ray.
This library adds an offset to the wall clock, which it reads from a file that tests write. It does not change monotonic
clocks and waiting.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

SOURCE = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *leap;

__attribute__((constructor)) static void open_leap(void) {
    const char *path = getenv("UNFREEZE_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED) leap = page;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && leap && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *leap;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec fine;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &fine)) return -1;
    now->tv_sec = fine.tv_sec;
    now->tv_usec = fine.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


class AdjustableClock:
    """The wall clock of all processes with :attr:`environment`.

    ``folder`` must exist, and its path must not contain a space, because LD_PRELOAD separates paths by spaces.
    """

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no C compiler: apt-get install gcc libc6-dev")
        self._offset, library, source = (folder / name for name in ("offset", "clock.so", "clock.c"))
        source.write_text(SOURCE)
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)],
            check=True,
            capture_output=True,
        )
        self.set_offset(0)
        self.environment = {"LD_PRELOAD": str(library), "UNFREEZE_TEST_CLOCK": str(self._offset)}

    def set_offset(self, seconds: int) -> None:
        """Set the clock ``seconds`` ahead of the true time."""
        with self._offset.open("r+b" if self._offset.exists() else "w+b") as file:
            file.write(struct.pack("=q", seconds))
