"""Removing a folder of data: that may be a link of the user's own, to a larger disk."""

import contextlib
import shutil
from pathlib import Path


def remove(folder: Path) -> None:
    """Removes a folder with what it holds, if it is there. Of a link the folder that it leads to may stay, empty: it is
    perhaps where a disk is mounted, or in a folder of somebody else. Raises OSError."""
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
