"""The databases that a study may use, as `remedy doctor` asks them: where one is wrong, a sentence says how."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import exc

from remedy.search.links import redact
from remedy.spaces.error import InfrastructureError

_CONNECT_SECONDS, _ANSWER_SECONDS = 4, 4
_SAID = {
    r"password authentication failed|Access denied": "refuses the user or the password",
    r"database .* does not exist|Unknown database": "is not there: the server runs, and has no database of this name",
    r"[Cc]onnection refused": "cannot be reached: nothing listens there; is PostgreSQL up?",
    r"timeout|timed out": "cannot be reached: what listens there does not answer as a database does",
    r"resolve|translate host|not known": "cannot be reached: the name of its host is not known here",
    r"No module named": "cannot be opened: its driver is missing; pip install 'psycopg[binary]'",
    r"permission denied": "refuses to be read: its user has no right to its tables",
}


def storage(url: str, schema: int) -> str:
    """Look at the database of studies; `schema` is what remedy's own tables have to be.

    Raises:
        InfrastructureError: it cannot be used.
    """
    with _opened(url, "REMEDY_STORAGE") as connection:
        standby, version, may_make = connection.execute(
            sa.text(
                "SELECT pg_is_in_recovery(), current_setting('server_version'), "
                "coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
            )
        ).one()
        if standby:
            raise InfrastructureError("is a standby and takes no writes; name the primary")
        tables = sa.inspect(connection).get_table_names()
        optuna = _schema(connection, "Optuna", "storages/_rdb/alembic/versions", "optuna storage upgrade --storage URL")
        ours = None
        if "remedy_schema" in tables:
            ours = connection.scalar(sa.text("SELECT max(version) FROM remedy_schema"))
        if ours not in (None, schema):
            todo = "see deploy/README.md" if ours < schema else "a newer remedy wrote them: install that"
            raise InfrastructureError(f"has remedy's tables in schema {ours}, and this remedy has {schema}; {todo}")
        if not tables and not may_make:
            raise InfrastructureError("lets its user make no tables; GRANT CREATE ON SCHEMA public TO that user")
    of_remedy = f"remedy's schema {ours}" if ours else "no study yet"
    return f"PostgreSQL {version.split()[0]} at {_shown(url)}: {optuna}, {of_remedy}"


def mlflow(uri: str) -> str:
    """Look at the database that MLflow keeps its record in, without a server.

    Raises:
        InfrastructureError: it cannot be used.
    """
    url = uri
    if uri.startswith("sqlite:"):
        file = Path(sa.make_url(uri).database or "")
        if not file.is_file():
            return f"{uri}, which the first study makes"
        url = f"sqlite:///file:{quote(str(file))}?mode=ro&uri=true"
    with _opened(url, "the record") as connection:
        found = _schema(connection, "MLflow", "store/db_migrations/versions", f"mlflow db upgrade {_shown(uri)}")
    return f"{_shown(uri)}: {found}"


def _schema(connection: sa.Connection, who: str, folder: str, upgrade: str) -> str:
    """Say which schema the tables of `who` have, where the version that is installed works with it.

    The package is not imported: its migrations are read as Alembic would read them, the last is the one nobody follows.
    """
    if not sa.inspect(connection).has_table("alembic_version"):
        return f"no tables of {who}'s yet"
    now = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    spec = find_spec(who.lower())
    scripts = (Path(str(spec and spec.origin)).parent / folder).glob("*.py")
    texts = [path.read_text(encoding="utf-8") for path in scripts]
    known = {name for text in texts for name in _named("revision", text)}
    followed = {name for text in texts for name in _named("down_revision", text)}
    if now in known - followed:
        return f"{who}'s schema {now}"
    if now in known:
        todo = f"older than {who} {metadata.version(who.lower())} wants; end all that uses it, then {upgrade}"
    else:
        todo = f"of a newer {who} or of another program; install that {who}, or give it a database of its own"
    raise InfrastructureError(f"has tables in schema {now}, {todo}")


def _named(kind: str, script: str) -> list[str]:
    return re.findall(rf"^{kind}\b.*?=\s*[\"'](.+?)[\"']", script, re.MULTILINE)


@contextmanager
def _opened(url: str, name: str) -> Iterator[sa.Connection]:
    try:
        postgres = sa.make_url(url).get_backend_name() == "postgresql"
        settings = {"connect_timeout": _CONNECT_SECONDS} if postgres else {}
        with sa.create_engine(url, poolclass=sa.NullPool, connect_args=settings).connect() as connection:
            if postgres:
                connection.execute(sa.text(f"SET statement_timeout = {1000 * _ANSWER_SECONDS}"))
            yield connection
    except InfrastructureError as error:
        raise InfrastructureError(f"{name}: {_shown(url)} {error}") from None
    except (exc.SQLAlchemyError, ImportError, ValueError) as error:
        lines = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
        said = next((said for sign, said in _SAID.items() if re.search(sign, lines[0])), f"says: {lines[0]}")
        raise InfrastructureError(f"{name}: {_shown(url)} {said}") from None


def _shown(url: str) -> str:
    return redact(url).replace("+psycopg:", ":")
