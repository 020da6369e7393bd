"""A bucket for tests: objects to put, get, list and delete, and nothing else; for `etils.epath`.

The objects lie in a folder, each as one file named by its quoted key, so that there are no folders in the bucket.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import os
import pathlib
import threading
import urllib.parse

from etils.epath import backend, gpath, stat_utils


def _key(path):
    """A path without its scheme."""
    return os.fspath(path).partition("://")[2] or os.fspath(path)


class Bucket(backend.Backend):
    """Keys to bytes, as paths of `etils.epath`. Renaming, copying and locks are not to be had."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def _file(self, path):
        return self.folder / urllib.parse.quote(_key(path).rstrip("/"), safe="")

    def listed(self, path=""):
        prefix = _key(path)
        found = (urllib.parse.unquote(file.name) for file in self.folder.iterdir() if file.suffix != ".part")
        return sorted(key for key in found if key.startswith(prefix))

    def put(self, path, content):
        part = self.folder / f"{threading.get_ident()}-{os.getpid()}.part"
        part.write_bytes(content)
        os.replace(part, self._file(path))

    def get(self, path):
        return self._file(path).read_bytes()

    def open(self, path, mode):
        if "w" in mode:
            return _Upload(self, path, text="b" not in mode)
        content = io.BytesIO(self.get(path))
        return content if "b" in mode else io.TextIOWrapper(content, encoding="utf-8")

    def exists(self, path):
        return self._file(path).exists() or self.isdir(path)

    def isdir(self, path):
        return bool(self.listed(f"{os.fspath(path).rstrip('/')}/"))

    def listdir(self, path):
        prefix = f"{_key(path).rstrip('/')}/"
        return sorted({key[len(prefix) :].partition("/")[0] for key in self.listed(prefix)} - {""})

    def glob(self, path):
        """A listing, of which the last part of the path is a pattern."""
        parent, _, pattern = os.fspath(path).rpartition("/")
        return [f"{parent}/{name}" for name in fnmatch.filter(self.listdir(parent), pattern)]

    def makedirs(self, path, *, exist_ok, mode=None):
        """There are no folders to make."""

    mkdir = makedirs

    def rmtree(self, path):
        for key in self.listed(f"{os.fspath(path).rstrip('/')}/"):
            self._file(key).unlink(missing_ok=True)

    def remove(self, path):
        self._file(path).unlink()

    def stat(self, path):
        if not self._file(path).exists():
            if not self.isdir(path):
                raise FileNotFoundError(path)
            return stat_utils.StatResult(is_directory=True, length=0, mtime=0)
        found = self._file(path).stat()
        return stat_utils.StatResult(is_directory=False, length=found.st_size, mtime=int(found.st_mtime))

    def _lacking(self, *_, **__):
        raise AssertionError("a bucket cannot do that")

    walk = rename = replace = copy = _lacking


class _Upload(io.BytesIO):
    """What is written to an object; it is there, whole, when this is closed."""

    def __init__(self, bucket, path, *, text):
        super().__init__()
        self._bucket, self._path, self._text = bucket, path, text

    def write(self, content):
        return super().write(content.encode() if self._text else content)

    def close(self):
        if not self.closed:
            self._bucket.put(self._path, self.getvalue())
        super().close()


@contextlib.contextmanager
def served(folder, monkeypatch, scheme="gs"):
    """`gs://` paths of this process, or those of another scheme, lead to a bucket in `folder`."""
    bucket = Bucket(folder)
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, scheme, bucket)
    yield bucket
