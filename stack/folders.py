"""Removing a folder of data: that may be a link of the user's own, to a larger disk."""

import contextlib
import shutil
from pathlib import Path


def remove(folder: Path) -> None:
    """Removes a folder with what it holds, if it is there. If it is a link, the folder that it leads to may stay,
    empty: a disk may be mounted there, or it may lie in somebody else's folder. Raises OSError."""
    if not folder.is_symlink():
        if folder.exists():
            shutil.rmtree(folder)
        return
    if folder.exists():
        target = folder.resolve()
        for path in target.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        with contextlib.suppress(OSError):
            target.rmdir()
    folder.unlink()
