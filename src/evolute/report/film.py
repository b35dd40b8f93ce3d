"""The video of a run that its page shows: inside the page where there is room, by its name where there is none."""

import base64
from pathlib import Path
from typing import Any

from evolute.errors import UserError
from evolute.files import VIDEO_FOLDER, read_at_most

# Bytes of the videos of a page, all together: in the page they take a third more, and a page is to stay below 5 MB.
ROOM = 3_000_000
# By the end of the name: what the browser is told that it is, and what such a file has at some place.
FORMS = {".mp4": ("video/mp4", b"ftyp", 4), ".gif": ("image/gif", b"GIF8", 0)}


def of_run(path: Path, room: int = ROOM) -> dict[str, Any] | None:
    """Return the video of a run's best policy, or any other one that is there, as data of JSON; None where there is none.

    Args:
        path: the run folder.
        room: bytes that it may have to be in the page.

    Returns:
        Its `name`, its `size` in bytes, and its `source`, which is a data URL, or null where it is too large or is no video.
    """
    try:
        found = [file for file in (path / VIDEO_FOLDER).iterdir() if file.suffix in FORMS and file.is_file()]
        if not found:
            return None
        file = min(found, key=lambda file: (file.stem != "best", list(FORMS).index(file.suffix), file.name))
        size = file.stat().st_size
        kind, mark, at = FORMS[file.suffix]
        content = read_at_most(file, room) if size <= room else b""
    except (OSError, UserError):
        return None
    sound = content[at : at + len(mark)] == mark
    return {
        "name": f"{VIDEO_FOLDER}/{file.name}",
        "size": size,
        "source": f"data:{kind};base64,{base64.b64encode(content).decode()}" if sound else None,
    }
