"""Memory of this process on Linux."""

import ctypes
import gc


def settle() -> float:
    """Gives back what is free, and starts a new peak.

    Returns:
        Float, MiB that the process holds.
    """
    gc.collect()
    # What was freed would otherwise still count, and hide the next peak.
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _status("VmRSS")


def peak() -> float:
    """MiB, the most since `settle`."""
    return _status("VmHWM")


def _status(key):
    with open("/proc/self/status") as file:
        values = dict(line.split(":", 1) for line in file)
    return int(values[key].split()[0]) / 1024
