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


@pytest.fixture(params=["in process", "ray"])
def executor(request: pytest.FixtureRequest) -> Executor:
    if request.param == "ray":
        return request.getfixturevalue("ray_executor")
    return InProcess()
