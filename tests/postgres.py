"""A real PostgreSQL of a test run's own: `with running_postgres() as server: server.url()`."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

USER = "remedy"
START = 120.0
# Without `synchronous_commit=off`: such a server forgets, when it crashes, what it said it had kept.
_QUICK = ["fsync=off", "full_page_writes=off", "max_connections=60", "shared_buffers=32MB"]
# Those who connect to a server that is away shall be refused, not sent to the wrong one: only these two ways lead in.
_WAYS = ["listen_addresses=127.0.0.1", "unix_socket_permissions=0777"]


class Postgres:
    """One server; it can be stopped, killed and started again on the same port, with the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.password = secrets.token_hex(8)
        self.port = _free_port()
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._make()

    def url(self, database: str = "remedy", user: str = USER, password: str | None = None) -> str:
        """The address of a database, with its password (`password`: another one)."""
        return f"postgresql://{user}:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Make a database; return its address."""
        self.sql(f'CREATE DATABASE "{database}"', database="postgres")
        return self.url(database)

    def sql(self, statement: str, database: str = "remedy") -> str:
        """Run a statement as the owner of all; return what it answers, a line each row, values parted by `|`."""
        asked = [_program("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        asked += ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database, "-c", statement]
        environment = {**os.environ, "PGPASSWORD": self.password}
        done = subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def start(self) -> None:
        """Start, and return when it answers."""
        assert self._process is None, "it runs already"
        settings = [part for setting in (*_QUICK, *_WAYS, f"port={self.port}") for part in ("-c", setting)]
        settings += ["-c", f"unix_socket_directories={self.folder}"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_owner(), _program("postgres"), "-D", str(self._data), *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C in a test run ends it by `stop`, not in the midst of a query
            )
        until = time.monotonic() + START
        ask = [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "2"]
        while subprocess.run(ask, check=False, capture_output=True).returncode:
            ended = self._process.poll() is not None
            if ended or time.monotonic() > until:
                self.stop(signal.SIGQUIT)
                said = (self.folder / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"PostgreSQL does not start: {said}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT drops whoever is connected, SIGTERM waits for them to leave, SIGQUIT is a crash."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)  # its children leave too, which SIGKILL would not promise
            process.wait(30)

    def kill(self) -> None:
        """Crash it: what runs is lost, nothing is written down, the next start recovers."""
        self.stop(signal.SIGQUIT)

    def restart(self, away: float = 0.0) -> None:
        """Stop it, stay away for so many seconds, and start it again on the same port."""
        self.stop()
        time.sleep(away)
        self.start()

    def _make(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password)
        if _as_owner():
            for path in (self.folder, secret):
                shutil.chown(path, "postgres", "postgres")
        secret.chmod(0o600)
        made = [*_as_owner(), _program("initdb"), "-D", str(self._data), "-U", USER, f"--pwfile={secret}"]
        made += ["--auth=scram-sha-256", "--no-sync", "--no-instructions", "-E", "UTF8", "--locale=C"]
        done = subprocess.run(made, capture_output=True, text=True, cwd=self.folder, timeout=START, check=False)
        assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def running_postgres(folder: Path | None = None, databases: Sequence[str] = ("remedy", "mlflow")) -> Iterator[Postgres]:
    """A server that runs, with these databases; it and its data are gone afterwards, whatever happened.

    Its files lie in a folder of their own in `folder`; by default in /tmp, since the name of a socket must be short,
    and since root's server runs as the user postgres, who cannot enter the folders that pytest makes.
    """
    place = Path(tempfile.mkdtemp(prefix="remedy-pg-", dir=folder or "/tmp"))
    server = None
    try:
        place.chmod(0o755)
        for attempt in range(3):
            try:
                server = server or Postgres(place)
                server.start()
                break
            except RuntimeError:  # somebody else was quicker to take the port
                if attempt == 2 or server is None:
                    raise
                server.port = _free_port()
        assert server is not None
        for database in databases:
            server.create(database)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(place, ignore_errors=True)


def _program(name: str) -> str:
    """The path of one of PostgreSQL's programs; Debian keeps most of them off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    program = str(found[-1]) if found else shutil.which(name)
    if program is None:
        why = f"PostgreSQL is not installed here: no program {name} (apt-get install postgresql)"
        if os.environ.get("CI"):  # there a test that is skipped would be taken for one that passes
            pytest.fail(why)
        pytest.skip(why)
    return program


def _as_owner() -> list[str]:
    """What goes before a command, so that it does not run as root: PostgreSQL refuses that."""
    if os.geteuid():
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
