import os
from collections.abc import Iterator

import pytest

from remedy.workers.executor import Executor, InProcess


@pytest.fixture(scope="session")
def ray_executor() -> Iterator[Executor]:
    """One Ray with one worker for the whole session: it takes seconds to start."""
    os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112  (other people's memory is no reason to kill a test)
    from remedy.workers.ray_executor import RayExecutor

    executor = RayExecutor(1)
    yield executor
    executor.close()


@pytest.fixture(scope="session")
def isolated() -> Iterator[InProcess]:
    """Runs one after the other, each in a fresh process."""
    executor = InProcess(isolate=True)
    yield executor
    executor.close()


@pytest.fixture(params=["in process", "isolated", "ray"])
def executor(request: pytest.FixtureRequest) -> Executor:
    if request.param == "in process":
        return InProcess()
    return request.getfixturevalue({"ray": "ray_executor"}.get(request.param, request.param))
