"""The page of a run that goes on: on the loopback address, refreshed, and nothing else beside it."""

import http.client
import socket
import threading

import pytest

from evolute.commands import cli, watch
from evolute.runs.folder import RunFolder
from test_report import RUN, row


@pytest.fixture
def folder(tmp_path):
    with RunFolder.create(tmp_path / "run", RUN) as folder:
        folder.append_metrics([row(1, slot, float(slot)) for slot in range(3)])
    return folder


@pytest.fixture
def ask(folder):
    """Ask the server of a run, and get status, headers and body."""
    server = watch.serving(watch.Pages([folder.path]), 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def ask(path="/", method="GET", host=None, **headers):
        connection = http.client.HTTPConnection(*server.server_address, timeout=10)
        try:
            connection.putrequest(method, path, skip_host=True)
            for name, value in {"Host": host or f"127.0.0.1:{server.server_port}", **headers}.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    ask.server = server
    yield ask
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_page_is_served_and_changes_with_the_run(ask, folder):
    status, headers, body = ask()
    assert (status, "data-live" in body, '"times":[1000]' in body) == (200, True, True)
    assert ask(If_None_Match=headers["ETag"])[0] == 304
    folder.append_metrics([row(2, slot, float(slot)) for slot in range(3)])
    status, again, body = ask(If_None_Match=headers["ETag"])
    assert (status, '"times":[1000,2000]' in body) == (200, True)
    assert again["ETag"] != headers["ETag"]
    # Whether a process trains shows, too.
    assert '"state":"stopped"' in body
    with folder.held():
        assert '"state":"running"' in ask()[2]


@pytest.mark.parametrize(
    "path", ["/config.toml", "/metrics.jsonl", "/../config.toml", "/?x", "/%2e%2e/", "/favicon.ico", "/run/", "http://x/"]
)
def test_nothing_but_the_page_can_be_fetched(ask, path):
    status, _, body = ask(path)
    assert (status, body) == (404, "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_it_can_only_be_read(ask, method):
    assert ask(method=method)[0] == 501


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "localhost"])
def test_a_page_of_another_name_cannot_read_it(ask, host):
    assert ask(host=host)[0] == 403


def test_nobody_may_frame_or_keep_it(ask):
    _, headers, _ = ask()
    assert (headers["X-Frame-Options"], headers["Cache-Control"], headers["X-Content-Type-Options"]) == (
        "DENY",
        "no-store",
        "nosniff",
    )
    assert headers["Access-Control-Allow-Origin"] is None
    assert headers["Server"].strip() == "evolute"


def test_only_this_machine_can_reach_it(ask):
    assert ask.server.server_address[0] == "127.0.0.1"
    assert ask.server.socket.family == socket.AF_INET


def test_a_folder_that_is_gone_is_no_error_of_the_server(ask, folder):
    folder.path.rename(folder.path.with_name("elsewhere"))
    assert ask()[0] == 410


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "no run folder"), (["{}", "--port", "99999"], "--port is 99999"), (["{}", "--port", "x"], "--port is x")],
)
def test_mistakes_are_one_sentence(folder, words, said, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["watch", *(word.format(folder.path) for word in words)])
    assert end.value.code == 2
    assert said in capsys.readouterr().err
