"""A Ray cluster of machines that differ, on this one: a head without room for runs, a large and a small node."""

from __future__ import annotations

from collections.abc import Mapping

from tests.ray_head import RayHead, RayNode

LARGE = {"num_cpus": 2, "num_gpus": 1, "resources": {"accelerator": 1, "spare": 1}}
"""The GPU is one that Ray believes in: how runs share it is Ray's book-keeping, and needs none."""
SMALL = {"num_cpus": 1, "resources": {"spare": 1}}


class Cluster:
    """A head that runs, and the nodes that were added to it."""

    def __init__(self, head: RayHead) -> None:
        self._head = head
        self._join()

    def _join(self) -> None:
        self.large: RayNode = self._head.add_node(**LARGE)
        self.small: RayNode = self._head.add_node(**SMALL)

    @property
    def address(self) -> str:
        """HOST:PORT, for a controller on this machine."""
        return self._head.address

    @property
    def dashboard(self) -> str:
        """http://HOST:PORT, for studies that are sent there."""
        return self._head.dashboard

    @property
    def environment(self) -> Mapping[str, str]:
        """What lets a process in."""
        return self._head.environment

    def node_of(self, mark: str) -> RayNode:
        """The node whose processes have this mark."""
        return next(node for node in (self.large, self.small) if node.mark == mark)

    def replace(self, gone: RayNode) -> None:
        """Add a node of the same kind."""
        if gone is self.large:
            self.large = self._head.add_node(**LARGE)
        else:
            self.small = self._head.add_node(**SMALL)

    def restart(self) -> None:
        """Take the whole cluster away, and start another at the same address: it remembers nothing."""
        assert self._head.head is not None
        for node in (self._head.head, self.large, self.small):
            node.kill()
        self._head.start()
        self._join()
