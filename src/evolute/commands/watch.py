"""evolute watch: the report of a run on this machine alone, refreshed as intervals end."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import tyro

from evolute.commands.flags import RunArgument, folder_of, whole_number
from evolute.commands.report import commands, run_folders
from evolute.errors import UserError, printable

LOOPBACK = "127.0.0.1"
# Seconds that a connection may stay silent.
PATIENCE = 10
# Nobody else may show the page inside another, or keep it.
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class Flags:
    """Serve a run's report on this machine, refreshed as its intervals end; Ctrl-C ends it."""

    run: RunArgument = None
    port: Annotated[str, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 0, a free one)")] = "0"
    """Port on the loopback address."""


def run(flags: Flags) -> None:
    """Serve the page until a signal ends the process."""
    pages = Pages(run_folders([folder_of(flags.run)]))
    port = whole_number("--port", flags.port, least=0)
    try:
        server = serving(pages, port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "it is above 65535"
        raise UserError(f"--port is {port}, which cannot be used: {reason}; choose another, or 0 for a free one.") from None
    with server:
        print(f"Watching {printable(str(flags.run))} at http://{LOOPBACK}:{server.server_port}/ (Ctrl-C ends this)", flush=True)
        server.serve_forever()


class Pages:
    """The page of some runs, made again when there is something new; for many threads."""

    def __init__(self, folders: Sequence[Path]):
        from evolute.runs.folder import RunFolder

        for folder in folders:
            RunFolder.open(folder)
        self._folders = folders
        self._lock = threading.Lock()
        self._stamp: Any = None
        self._page = b""
        self._tag = ""
        self.newest()

    def newest(self) -> tuple[str, bytes]:
        """Return the page and what tells it from others; raises UserError where there is no run any more."""
        import hashlib

        from evolute.report import page, reading

        with self._lock:
            # Before the records are read: what comes meanwhile is read again.
            stamp = [reading.stamp(folder) for folder in self._folders]
            if stamp != self._stamp:
                shown = page.data(self._folders, [commands(folder) for folder in self._folders])
                self._page = page.html(shown, live=True).encode()
                self._tag = f'"{hashlib.sha256(self._page).hexdigest()[:32]}"'
                self._stamp = stamp
            return self._tag, self._page


def serving(pages: Pages, port: int) -> ThreadingHTTPServer:
    """Return a server of a page on the loopback address, which answers nothing else; raises OSError where it cannot be had."""

    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE
        server_version, sys_version = "evolute", ""

        def do_GET(self) -> None:
            # A name that somebody else's server gives for this address would let their page read this one.
            named = [f"{host}:{server.server_port}" for host in (LOOPBACK, "localhost")]
            if self.headers.get("Host") not in named:
                self._answer(HTTPStatus.FORBIDDEN)
            elif self.path != "/":
                self._answer(HTTPStatus.NOT_FOUND)
            else:
                try:
                    tag, page = pages.newest()
                except UserError:
                    self._answer(HTTPStatus.GONE)
                    return
                if self.headers.get("If-None-Match") == tag:
                    self._answer(HTTPStatus.NOT_MODIFIED, tag)
                else:
                    self._answer(HTTPStatus.OK, tag, page)

        def _answer(self, status: HTTPStatus, tag: str = "", page: bytes = b"") -> None:
            self.send_response(status)
            for name, value in HEADERS.items():
                self.send_header(name, value)
            if tag:
                self.send_header("ETag", tag)
            if status != HTTPStatus.NOT_MODIFIED:
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing of requests."""

    server = ThreadingHTTPServer((LOOPBACK, port), Handler)
    server.daemon_threads = True
    return server
