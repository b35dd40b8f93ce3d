"""A place at a URL for files: an object store, or any other that fsspec knows."""

import contextlib
import importlib
import re
from collections.abc import Iterator

from evolute.errors import RunStopped, UserError

# In a URL such as sftp://name:password@host/sweep.
PASSWORD = re.compile(r"(?<=://)([^/@:\s]*):[^/\s]*@")


class Place:
    """What is below a URL. Names are relative to it."""

    def __init__(self, url: str):
        """Reach the place; raises UserError where nobody knows how, and RunStopped where that fails.

        Args:
            url: such as s3://bucket/sweep; the place's own variables, such as AWS_ENDPOINT_URL, say more.
        """
        # As messages and lists show it.
        self.url = without_password(url)
        with self.told():
            try:
                fsspec = importlib.import_module("fsspec")
                self._files, self._root = fsspec.core.url_to_fs(url)
            except ImportError as missing:
                raise UserError(
                    f"the storage {self.url!r} needs a package that is not here ({missing}); install it with: pip install "
                    "'evolute[storage]', or see fsspec's documentation for other places."
                ) from None
            except ValueError as error:
                said = without_password(str(error))
                raise UserError(
                    f"the storage {self.url!r} cannot be used: {said}; give a URL such as s3://bucket/sweep."
                ) from None

    def exists(self, name: str = "") -> bool:
        """Return whether there is a file or a folder, by default whether there is the place itself."""
        try:
            # Not fsspec's `exists`, which answers no to any error.
            self._files.info(self._at(name).rstrip("/"))
        except FileNotFoundError:
            return False
        return True

    def find(self, where: str) -> dict[str, int]:
        """Return the files below a folder and their bytes, by name from there; none where there is no such folder."""
        base = self._at(where)
        self._files.invalidate_cache()
        try:
            found = self._files.find(base, detail=True)
        except FileNotFoundError:
            return {}
        return {path[len(base) :].lstrip("/"): about["size"] for path, about in found.items()}

    def get(self, name: str, most: int | None = None) -> bytes:
        """Return what a file holds; raises UserError where it has more than `most` bytes."""
        at = self._at(name)
        if most is not None and self._files.size(at) > most:
            raise UserError(f"{name!r} at {self.url!r} has more than {most:,} bytes; it is no file of a run, so remove it there.")
        return self._files.cat_file(at)

    def put(self, name: str, data: bytes) -> None:
        """Write a file."""
        target = self._at(name)
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.pipe_file(target, data)

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._files.rm_file(self._at(name))

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Say in a sentence what the place's own library raises, of whatever type that is, as RunStopped."""
        try:
            yield
        except (RunStopped, UserError):
            raise
        except Exception as error:
            said = (without_password(str(error)).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise RunStopped(f"the storage {self.url!r} cannot be used: {said}; fix that first.") from None

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


def without_password(text: str) -> str:
    """Return a text with *** for the password of each URL in it: what is told can end in a log that others read."""
    return PASSWORD.sub(r"\1:***@", text)
