"""Numbered folders that a server watches: complete, or not there at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator

# A version being written; servers ignore names that are not integers.
_WRITING = ".writing"
# The highest number ever given, also to versions that have been removed: a
# server would take a second version of one number for the first.
_LAST = ".last_version"


@contextlib.contextmanager
def new_version(directory: str) -> Iterator[tuple[str, str]]:
    """A folder to write in, which becomes the next version by a rename.

    Args:
        directory: String, folder of the versions; made if missing.

    Yields:
        `(folder, version)`: the folder to write in, and the one that it
        becomes at the end. After an exception there is neither.

    Raises:
        ValueError: If `directory` cannot be written.
    """
    try:
        os.makedirs(directory, exist_ok=True)
        temporary, version = _reserve(directory)
    except OSError as error:
        raise ValueError(
            "`directory` must be a folder that can be written. "
            f"Received: directory={directory} ({error.strerror})"
        ) from error
    try:
        yield temporary, version
        os.rename(temporary, version)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _reserve(directory):
    while True:
        number = 1 + _highest(directory)
        version = os.path.join(directory, str(number))
        temporary = version + _WRITING
        try:
            os.mkdir(temporary)
        except FileExistsError:
            continue  # another export took this number just now
        if not os.path.exists(version):
            break
        os.rmdir(temporary)  # ... and has even finished
    last = os.path.join(directory, _LAST)
    with open(f"{last}.{number}", "w") as file:
        file.write(str(number))
    os.replace(file.name, last)
    return temporary, version


def _highest(directory):
    names = [name.removesuffix(_WRITING) for name in os.listdir(directory)]
    with contextlib.suppress(FileNotFoundError):
        with open(os.path.join(directory, _LAST)) as file:
            names.append(file.read())
    return max((int(name) for name in names if name.isdecimal()), default=0)
