"""A bucket for tests: objects to put, get, list and delete, and nothing else; for `etils.epath` and for TensorStore.

The objects lie in a folder, each as one file named by its quoted key, so that there are no folders in the bucket.
"""

from __future__ import annotations

import contextlib
import fnmatch
import http.server
import io
import json
import os
import pathlib
import threading
import urllib.parse

from etils.epath import backend, gpath, stat_utils


class Bucket(backend.Backend):
    """Keys to bytes, as `gs://` paths of `etils.epath`. Renaming, copying and locks are not to be had."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def _file(self, path):
        return self.folder / urllib.parse.quote(os.fspath(path).removeprefix("gs://").rstrip("/"), safe="")

    def listed(self, path=""):
        prefix = os.fspath(path).removeprefix("gs://")
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
        prefix = f"{os.fspath(path).rstrip('/')}/".removeprefix("gs://")
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


class _Handler(http.server.BaseHTTPRequestHandler):
    """As much of Google's JSON interface as TensorStore uses."""

    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def _key(self, path):
        _, _, rest = path.partition("/b/")
        name, _, key = rest.partition("/o/")
        return f"{name}/{urllib.parse.unquote(key)}"

    def _answer(self, status, content=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path.endswith("/o"):
            name = url.path.split("/b/")[1].split("/")[0]
            keys = self.bucket.listed(f"{name}/{query.get('prefix', '')}")
            items = [{"name": key.partition("/")[2], "generation": "1", "size": "0"} for key in keys]
            return self._answer(200, json.dumps({"items": items}).encode())
        try:
            content, status, headers = self.bucket.get(self._key(url.path)), 200, {}
        except FileNotFoundError:
            return self._answer(404)
        if span := self.headers.get("Range"):
            first, _, last = span.removeprefix("bytes=").partition("-")
            begin = int(first) if first else len(content) - int(last)
            end = min(int(last) + 1 if first and last else len(content), len(content))
            headers = {"Content_Range": f"bytes {begin}-{end - 1}/{len(content)}"}
            content, status = content[begin:end], 206
        return self._answer(status, content, x_goog_generation="1", **headers)

    def do_POST(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name = url.path.split("/b/")[1].split("/")[0]
        if query.get("ifGenerationMatch") == "0" and self.bucket.listed(f"{name}/{query['name']}"):
            return self._answer(412)
        self.bucket.put(f"{name}/{query['name']}", content)
        return self._answer(200, json.dumps({"generation": "1", "name": query["name"]}).encode())

    def do_DELETE(self):
        with contextlib.suppress(FileNotFoundError):
            self.bucket.remove(self._key(urllib.parse.urlsplit(self.path).path))
        self._answer(204)

    def log_message(self, *_):
        """Says nothing."""


@contextlib.contextmanager
def served(folder, monkeypatch):
    """`gs://` paths of this process lead to a bucket in `folder`."""
    bucket = Bucket(folder)
    handler = type("Handler", (_Handler,), {"bucket": bucket})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", bucket)
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
    try:
        yield bucket
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
