"""A study with everything hostile, names that are markup and servers with passwords: what it shows is harmless."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from markdown_it import MarkdownIt

from remedy.cli import main
from remedy.page import Page
from remedy.search.links import redact
from remedy.search.markdown import escape
from remedy.search.markup import safe
from remedy.spaces.error import InfrastructureError, InputError
from remedy.spaces.printable import printable
from remedy.workers.ray_jobs import check
from tests.conftest import Answer, CommandLine
from tests.postgres import Postgres, running_postgres
from tests.security.looking import environment, family, listening, said_on_start

TOKEN, PASSWORD = "ray-token-0123456789abcdef", "mlflow-password-9876"
FOLDER = '<img src=x onerror=alert(1)>|"&amp; [a](javascript:alert(1)) `b`\x1b]0;x\x07\x9b2J\u202e'
EVIL = (
    "<script>alert(1)</script>|</pre></style></title><iframe src=javascript:alert(2)> "
    "\"'` [a](javascript:alert(3))\x1b]0;x\x07\x9b2J\u202e\n# big"
)
COMMANDS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
BEFORE = f"""
EVIL = {EVIL!r}

@remedy.remedy("gradient", treats=["chance_plateau"], invasiveness=1, source="<b>" + EVIL.splitlines()[0])
def hostile(rule):
    \"\"\"<script>alert(4)</script> | `x`.\"\"\"
    print("\x1b]0;printed\x07\x1b[32mgreen\x1b[0m")
    raise ValueError(EVIL)


def metric(outputs, targets):
    return float((outputs.argmax(1) == targets).float().mean())


metric.__name__ = metric.__qualname__ = EVIL
"""
HARMLESS = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "section", "footer", "nav", "h1", "h2", "h3",
    "p", "ul", "ol", "li", "code", "pre", "em", "strong", "b", "a", "div", "span", "br", "hr", "dl", "dt", "dd",
    "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "details", "summary", "svg", "g", "path",
    "line", "rect", "circle", "ellipse", "text", "tspan", "polygon", "polyline", "desc", "defs", "clippath",
}  # fmt: skip


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres(databases=["mlflow"]) as server:
        yield server


@pytest.fixture(scope="module")
def secrets(postgres: Postgres) -> dict[str, str]:
    """What the environment of a study may hold."""
    return {
        "MLFLOW_TRACKING_URI": postgres.url("mlflow").replace("postgresql:", "postgresql+psycopg:"),
        "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        "MLFLOW_TRACKING_TOKEN": PASSWORD,
        "RAY_AUTH_TOKEN": TOKEN,
    }


@pytest.fixture(scope="module")
def study(shared_remedy: CommandLine, secrets: dict[str, str]) -> tuple[CommandLine, Answer]:
    """The study `s`, in a folder of a hostile name, and what was said of it."""
    folder = shared_remedy.place / FOLDER
    folder.mkdir()
    remedy = CommandLine(folder, shared_remedy.home)
    remedy.write("train", "metric=metric, mode='max', steps=40", BEFORE)
    said = remedy("submit", "train.py", "--workers", "0", "--runs", "5", "--only", "hostile", "--name", "s", code=None,
                  **secrets)  # fmt: skip
    assert "hostile" in said.out, said
    return remedy, said


class Walk(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.odd: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name.startswith("on") or "javascript:" in (value or "").lower().strip().split("alert")[0][:15]:
                self.odd.append(f"{tag} {name}={value}")
            if name in ("src", "href") and not (value or "").startswith(("#", "data:text/csv;")):
                self.odd.append(f"{tag} {name}={value}")


def recorded(postgres: Postgres) -> str:
    """All text of the record."""
    tables = dict.fromkeys(("params", "tags", "experiment_tags"), "key, value")
    tables |= {"runs": "name, artifact_uri", "experiments": "name, artifact_location"}
    return "\n".join(postgres.sql(f"SELECT {columns} FROM {table}", "mlflow") for table, columns in tables.items())


def test_no_password_and_no_token_is_written_down_or_said(study, postgres):
    remedy, said = study
    shown = [said.out, said.err, recorded(postgres)]
    assert "remedy.outcome" in shown[-1], "the record was written"
    for command in (("report", "s", "--format", "json"), ("report", "s", "--format", "md"), ("show", "s"), ("doctor",)):
        answer = remedy(*command, code=None, MLFLOW_TRACKING_URI=postgres.url("mlflow"), RAY_AUTH_TOKEN=TOKEN,
                        REMEDY_ADDRESS="127.0.0.1:9")  # fmt: skip
        shown += [answer.out, answer.err]
    shown += [path.read_text(errors="replace") for path in remedy.home.rglob("*") if path.is_file()]
    for secret in (postgres.password, TOKEN, PASSWORD):
        assert not [text for text in shown if secret in text], secret
    assert f"***@127.0.0.1:{postgres.port}/mlflow" in "".join(shown), "the store is said, without its secrets"


def test_no_name_becomes_markup_in_a_page_or_in_a_note(study, postgres):
    remedy, _ = study
    pages = [path.read_text() for path in remedy.home.rglob("*.html")]
    pages.append(remedy("report", "s", "--format", "html", code=None).out)
    assert len(pages) >= 2
    for page in pages:
        walk = Walk(page)
        assert walk.tags <= HARMLESS, walk.tags - HARMLESS
        assert walk.odd == []
    ask = "SELECT encode(convert_to(value, 'UTF8'), 'hex') FROM tags WHERE key = 'mlflow.note.content'"
    texts = [bytes.fromhex(line).decode() for line in postgres.sql(ask, "mlflow").splitlines()]
    assert len(texts) >= 5
    texts.append(remedy("report", "s", "--format", "md", code=None).out)
    for text in texts:
        walk = Walk(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))
        assert walk.tags <= HARMLESS, (walk.tags - HARMLESS, text)
        assert walk.odd == []
        assert "\n# big" not in text


def test_the_ui_listens_on_this_machine_alone_and_tells_no_password(study, postgres, secrets, started):
    remedy, _ = study
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ui = started(remedy.start("ui", "--port", port, PYTHONUNBUFFERED="1", **secrets))
    until = time.monotonic() + 120
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            break
        assert ui.poll() is None, ui.communicate()
        assert time.monotonic() < until
        time.sleep(0.2)
    everyone = family(ui.pid)
    assert len(everyone) > 1
    assert listening(everyone) == {("0100007F", port)}, "127.0.0.1, and nothing else"
    servers = [environment(pid) for pid in everyone[1:]]
    assert all(server.get("MLFLOW_ALLOW_PICKLE_DESERIALIZATION") == "false" for server in servers if server)
    assert not [pid for pid in everyone if postgres.password in said_on_start(pid)]
    ui.terminate()
    out, err = ui.communicate(timeout=60)
    assert postgres.password not in out + err


def begun(remedy: CommandLine) -> None:
    """A study `s` of which no more is there than that MLflow knows it."""
    (remedy.home / "studies" / "s").mkdir(parents=True)
    for name in ("study.json", "report.json"):
        (remedy.home / "studies" / "s" / name).write_text('{"mlflow": {"parent_run_id": "abc"}}')


def told(capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, *args: object, **environment: str) -> Answer:
    """Run a command in this process, with these variables of the environment."""
    with patch.context() as inner:
        for name, value in environment.items():
            inner.setenv(name, value)
        code = main([str(arg) for arg in args])
    return Answer(code, *capsys.readouterr(), 0.0)


def test_errors_name_servers_without_their_passwords(remedy, capsys, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        dead = probe.getsockname()[1]
    begun(remedy)
    home = ("--home", remedy.home)
    for password in ("hunter2", "hunter2/and@more:of#it", "hunter2%2Fand"):
        for name, scheme, command in (
            ("MLFLOW_TRACKING_URI", "http", ("ui",)),
            ("REMEDY_STORAGE", "postgresql", ("list",)),
            ("REMEDY_STORAGE", "postgresql", ("show", "s")),
            ("REMEDY_STORAGE", "mysql", ("list",)),
        ):
            uri = f"{scheme}://me:{password}@127.0.0.1:{dead}/x"
            answer = told(capsys, monkeypatch, *command, *home, **{name: uri})
            assert answer.code in (2, 5), answer
            assert "hunter2" not in answer.out + answer.err, answer
            assert "of#it" not in answer.err, answer
    train = remedy.write("train")
    for address in (f"http://me:hunter2@127.0.0.1:{dead}", f"me:hunter2@127.0.0.1:{dead}"):
        answer = told(capsys, monkeypatch, "submit", train, "--address", address, "--name", f"t{len(address)}", *home)
        assert answer.code in (2, 5), answer
        assert "hunter2" not in answer.out + answer.err, answer
    assert not [path for path in remedy.home.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at postgresql://me:a/b@host/db", "at postgresql://***@host/db"),
        ("at postgresql://me:a@b:c@host:5432/db now", "at postgresql://***@host:5432/db now"),
        ("http://host:5000/#/experiments/1 and me@home", "http://host:5000/#/experiments/1 and me@home"),
        ("'http://me:p@host', 'http://you:q@there'", "'http://***@host', 'http://***@there'"),
        ("https://token@host/x?password=secret&x=1", "https://***@host/x?password=***&x=1"),
    ],
)
def test_an_address_is_shown_without_its_secrets(text, shown):
    assert redact(text) == shown


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\x1b]0;title\x07b", "a ]0;title b"),
        ("\x1b[2J\x1b[31mred", " [2J [31mred"),
        ("\x9b31mC1\x90 \x7f", " 31mC1   "),
        ("two\r\nlines\u2028three", "two lines three"),
        ("exe\u202egnp.\u2066", "exe gnp. "),
        ("plain, m\u00fcller, \u4e2d", "plain, m\u00fcller, \u4e2d"),
    ],
)
def test_a_name_is_one_line_that_no_terminal_obeys(text, line):
    assert printable(text) == line
    assert str(InputError(f"file {text} is none")) == f"file {line} is none"
    page = Page(terminal=False)
    page.line(text)
    page.raw(text)
    page.table(("name",), [(text,)])
    assert not COMMANDS.findall(str(page))
    assert not COMMANDS.findall(escape(text) + safe(text))


def test_nothing_that_is_shown_of_a_study_commands_the_terminal(study, capsys, monkeypatch):
    remedy, answer = study
    shown = [answer.out, answer.err, remedy("check", "train.py").out]
    home = ("--home", remedy.home)
    for command in (("list",), ("show", "s"), ("show", "s", "--run", "0"), ("report", "s"), ("ui", "--port", "0"),
                    ("report", "s", "--format", "md"), ("report", "s", "--format", "json")):  # fmt: skip
        found = told(capsys, monkeypatch, *command, *home)
        shown += [found.out, found.err]
    assert "onerror" in "".join(shown)
    assert [COMMANDS.findall(text) for text in shown if COMMANDS.search(text)] == []
    logs = told(capsys, monkeypatch, "logs", "s", *home).out
    assert "\x1b]0;printed\x07\x1b[32mgreen" in logs, "a pipe gets what was printed"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    logs = told(capsys, monkeypatch, "logs", "s", *home).out
    assert "]0;printed\x1b[32mgreen" in logs, "a terminal gets its colours"
    assert "\x1b]" not in logs


def test_a_password_or_token_does_not_follow_a_server_that_points_elsewhere(remedy, capsys, monkeypatch):
    heard: list[str | None] = []
    pointed: list[str | None] = []

    class Thief(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers.get("Authorization"))
            self.send_response(404)
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    class Pointer(Thief):
        def do_GET(self) -> None:
            pointed.append(self.headers.get("Authorization"))
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{thief.server_port}{self.path}")
            self.end_headers()

        do_POST = do_GET  # noqa: N815

    begun(remedy)
    with HTTPServer(("127.0.0.1", 0), Thief) as thief, HTTPServer(("127.0.0.1", 0), Pointer) as pointer:
        threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in (thief, pointer)]
        for thread in threads:
            thread.start()
        there = f"127.0.0.1:{pointer.server_port}"
        try:
            told(capsys, monkeypatch, "ui", "--home", remedy.home, MLFLOW_TRACKING_URI=f"http://me:hunter2@{there}")
            monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
            with pytest.raises(InfrastructureError, match="no Ray dashboard"):
                check(f"http://{there}")
            told(capsys, monkeypatch, "doctor", "--home", remedy.home, "--address", f"http://{there}",
                 MLFLOW_TRACKING_URI=f"http://me:hunter2@{there}")  # fmt: skip
        finally:
            for server, thread in zip((thief, pointer), threads, strict=True):
                server.shutdown()
                thread.join()
    assert len([said for said in pointed if said]) >= 3, "whom it is for hears it"
    assert heard == []
