"""The texts of studies in PostgreSQL, for studies that are worked on and looked at from many machines."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects.postgresql import insert

from remedy.search.links import redact
from remedy.spaces.error import InfrastructureError, InputError

SCHEMA = 1
PATIENCE = 600.0
"""Seconds for which a study under way waits for a database that went away."""
_FIRST_DELAY, _LAST_DELAY = 0.5, 5.0
_LOOK = 5.0
_CONNECT = {
    "connect_timeout": 5,
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "application_name": "remedy",
}
T = TypeVar("T")

_TABLES = sa.MetaData()
_schema = sa.Table("remedy_schema", _TABLES, sa.Column("version", sa.Integer, primary_key=True))
_owners = sa.Table(
    "remedy_studies",
    _TABLES,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("place", sa.BigInteger, sa.Identity(), nullable=False),
    sa.Column("holder", sa.Text),
)
_texts = sa.Table(
    "remedy_files",
    _TABLES,
    sa.Column("study", sa.Text, sa.ForeignKey("remedy_studies.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("content", sa.Text, nullable=False),
)


def address(storage: str) -> str:
    """Return what SQLAlchemy opens for `REMEDY_STORAGE`.

    Raises:
        InputError: it is no address of a PostgreSQL database, or its driver is not installed.
    """
    scheme, _, rest = storage.partition("://")
    try:
        sa.make_url(storage)
    except (ValueError, exc.ArgumentError):  # a port that is no number
        rest = ""
    if scheme not in ("postgresql", "postgres", "postgresql+psycopg") or not rest:
        may_be = "it may be postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        raise InputError(f"REMEDY_STORAGE is {redact(storage)!r}; {may_be}")
    try:
        import psycopg  # noqa: F401, PLC0415  (an extra: laptops have no use for it)
    except ImportError:
        raise InputError(
            "REMEDY_STORAGE asks for PostgreSQL; install its driver: pip install 'remedy[postgres]'"
        ) from None
    return f"postgresql+psycopg://{rest}"


class Database:
    """One PostgreSQL database with the texts of all studies. `patience` is in seconds; 0 for who only looks."""

    def __init__(self, storage: str, patience: float = 0.0) -> None:
        """Connect to nothing yet."""
        self.url = address(storage)
        self.where = redact(storage)
        self.patience = patience
        self.waited: Callable[[str], None] = lambda _said: None
        # A pool of few: one thread works on a study, one writes its record.
        self._engine = sa.create_engine(self.url, pool_pre_ping=True, pool_size=2, connect_args=_CONNECT)
        self._made = False

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def connect(self) -> sa.Connection:
        """Open a connection of the caller's own."""
        return self._engine.connect()

    def do(self, work: Callable[[sa.Connection], T], *, make: bool = False) -> T:
        """Do something in one transaction, again and again while the database is away. `make` makes missing tables.

        Raises:
            InfrastructureError: it is away, for longer than the patience.
        """

        def once() -> T:
            if make and not self._made:
                self._make()
            with self._engine.begin() as connection:
                return work(connection)

        return self.patiently(once)

    def patiently(self, work: Callable[[], T]) -> T:
        """Do something that may find the database away, and say so where it is."""
        began, delay = time.monotonic(), _FIRST_DELAY
        while True:
            try:
                return work()
            except Exception as error:
                if not is_away(error):
                    raise
                said = f"the storage at {self.where} is away: {sentence(error)}"
                if time.monotonic() - began >= self.patience:
                    raise InfrastructureError(said) from None
                self.waited(said)
                time.sleep(min(delay, max(0.0, began + self.patience - time.monotonic())))
                delay = min(2 * delay, _LAST_DELAY)

    def _make(self) -> None:
        with self._engine.begin() as connection:
            # Two that come first at the same time would both make the tables.
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended('remedy tables', 0))"))
            _TABLES.create_all(connection)
            found = connection.scalar(sa.select(_schema.c.version))
            if found is None:
                connection.execute(_schema.insert().values(version=SCHEMA))
            elif found != SCHEMA:
                said = f"has schema {found}, and this remedy works with {SCHEMA}; see deploy/README.md"
                raise InfrastructureError(f"the storage at {self.where} {said}")
        self._made = True

    def names(self, key: str) -> list[str]:
        """Return who has a text of that key, oldest first."""

        def ask(connection: sa.Connection) -> list[str]:
            if not sa.inspect(connection).has_table(_owners.name):
                return []
            wanted = sa.select(_owners.c.name).join(_texts).where(_texts.c.key == key).order_by(_owners.c.place)
            return list(connection.scalars(wanted))

        return self.do(ask)

    def files(self, name: str) -> DatabaseFiles:
        """Return the texts of one study."""
        return DatabaseFiles(self, name)


def is_away(error: BaseException) -> bool:
    """Whether an error means that the database cannot be reached, or is stopping or starting."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, exc.OperationalError | exc.InterfaceError | exc.DisconnectionError):
            return True
        if isinstance(chain, exc.DBAPIError) and chain.connection_invalidated:
            return True
        chain = chain.__cause__
    return False


def sentence(error: BaseException) -> str:
    """Return what a database said, in one line and without secrets."""
    while isinstance(error, exc.DBAPIError) or error.__cause__ is not None:
        error = error.orig if isinstance(error, exc.DBAPIError) and error.orig else error.__cause__  # type: ignore[assignment]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redact(lines[0] if lines else type(error).__name__)[:300].rstrip(" .:")


@dataclass
class DatabaseFiles:
    """Texts of one study in the database. Who holds the lease writes only as long as nobody took it over."""

    database: Database
    name: str
    _holder: str = ""
    _lease: _Lease | None = dataclasses.field(default=None, repr=False)

    @property
    def where(self) -> str:
        return f"{self.database.where} ({self.name})"

    @property
    def folder(self) -> Path | None:
        return None

    def read(self, key: str) -> str | None:
        return self._read(_texts.c.key == key).get(key)

    def read_all(self, prefix: str) -> dict[str, str]:
        return self._read(_texts.c.key.startswith(prefix, autoescape=True))

    def keys(self, prefix: str) -> list[str]:
        wanted = sa.select(_texts.c.key).where(_texts.c.study == self.name)
        wanted = wanted.where(_texts.c.key.startswith(prefix, autoescape=True))
        return sorted(self._ask(lambda connection: list(connection.scalars(wanted))))

    def _read(self, condition: sa.ColumnElement[bool]) -> dict[str, str]:
        wanted = sa.select(_texts.c.key, _texts.c.content).where(_texts.c.study == self.name, condition)
        found = self._ask(lambda connection: [(str(key), str(text)) for key, text in connection.execute(wanted)])
        return dict(sorted(found))

    def _ask(self, work: Callable[[sa.Connection], list[Any]]) -> list[Any]:
        def look(connection: sa.Connection) -> list[Any]:
            return work(connection) if sa.inspect(connection).has_table(_texts.name) else []

        return self.database.do(work if self.database._made else look)  # noqa: SLF001  (of the same file)

    def write(self, key: str, text: str) -> None:
        row = insert(_texts).values(study=self.name, key=key, content=_storable(text))
        self._change(row.on_conflict_do_update(index_elements=["study", "key"], set_={"content": row.excluded.content}))

    def append(self, key: str, line: str) -> None:
        row = insert(_texts).values(study=self.name, key=key, content=_storable(line) + "\n")
        longer = _texts.c.content + row.excluded.content
        # The same line twice, after an answer that got lost, is for the reader to pass over.
        self._change(row.on_conflict_do_update(index_elements=["study", "key"], set_={"content": longer}))

    def remove(self, key: str) -> None:
        self._change(_texts.delete().where(_texts.c.study == self.name, _texts.c.key == key))

    def remove_all(self) -> None:
        self._change(_owners.delete().where(_owners.c.name == self.name))

    def _change(self, statement: sa.Executable) -> None:
        def change(connection: sa.Connection) -> None:
            if self._holder:
                mine = sa.select(_owners.c.name).where(_owners.c.name == self.name, _owners.c.holder == self._holder)
                if connection.scalar(mine.with_for_update(read=True)) is None:
                    raise InfrastructureError(f"study {self.name!r} was taken over by another process")
            else:
                known = insert(_owners).values(name=self.name).on_conflict_do_nothing()
                connection.execute(known)
            connection.execute(statement)

        if self._lease is not None:
            self._lease.keep()
        self.database.do(change, make=True)

    @contextmanager
    def lease(self) -> Iterator[None]:
        held = _Lease(self.database, self.name)
        held.take()
        self._holder, self._lease = held.token, held
        try:
            yield
        finally:
            self._holder, self._lease = "", None
            held.give_back()

    def held(self) -> bool:
        look = sa.text(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database()) AND "
            "((classid::bigint << 32) | objid::bigint) = hashtextextended(:name, 1)"
        )
        return bool(self.database.do(lambda connection: connection.scalar(look, {"name": self.name})))


def _storable(text: str) -> str:
    return text.replace("\0", "�")  # PostgreSQL has no NUL in a text


class _Lease:
    """A lock that lasts as long as its connection: it needs no clock, and ends with its process, however that ends.

    A database that was started anew has forgotten it; the holder that is written down says whether another process
    took the study over in the meantime.
    """

    def __init__(self, database: Database, name: str) -> None:
        self.token = uuid.uuid4().hex
        self._database = database
        self._name = name
        self._connection: sa.Connection | None = None
        self._looked = 0.0
        self._guard = threading.Lock()

    def take(self) -> None:
        self._database.do(self._know, make=True)
        self._connection = self._database.patiently(self._locked)
        self._database.do(
            lambda c: c.execute(_owners.update().where(_owners.c.name == self._name).values(holder=self.token))
        )
        self._looked = time.monotonic()

    def _know(self, connection: sa.Connection) -> None:
        connection.execute(insert(_owners).values(name=self._name).on_conflict_do_nothing())

    def _locked(self) -> sa.Connection:
        connection = self._database.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            lock = sa.text("SELECT pg_try_advisory_lock(hashtextextended(:name, 1))")
            if connection.scalar(lock, {"name": self._name}):
                return connection
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        connection.close()
        msg = f"study {self._name!r} is being worked on by another process; wait for it, or stop it"
        raise InputError(msg)

    def keep(self) -> None:
        """Take the lock again where its connection was lost, unless somebody else has it by now."""
        with self._guard:
            if time.monotonic() - self._looked < _LOOK:
                return
            if not self._answers():
                self._drop()
                try:
                    self._connection = self._database.patiently(self._locked)
                except InputError:
                    raise InfrastructureError(f"study {self._name!r} was taken over by another process") from None
            self._looked = time.monotonic()

    def _answers(self) -> bool:
        if self._connection is None:  # lost before, and not taken again
            return False
        try:
            self._connection.scalar(sa.text("SELECT 1"))
        except exc.SQLAlchemyError:
            return False
        return True

    def give_back(self) -> None:
        self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(exc.SQLAlchemyError):
                self._connection.invalidate()  # closed for good: a pooled one would keep the lock
                self._connection.close()
            self._connection = None
