"""Test that a slow start of Ray's own processes is reported as a cluster error.

Ray raises a bare Exception for it. To provoke it, a machine would have to stand still for half a minute, so the test
raises that exception itself.
"""

from __future__ import annotations

import pytest
import ray

from search import SearchConfig
from search.execution.engines.session import connect
from trainables.errors import ClusterError

WORDS = "The current node timed out during startup. This could happen because some of the raylet failed to startup."


@pytest.mark.parametrize(
    ("raised", "expected"), [(Exception(WORDS), ClusterError), (KeyError("x"), KeyError)]
)
def test_only_a_slow_start_of_ray_is_reported_as_a_cluster_error(
    raised: Exception, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: object) -> None:
        raise raised

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(expected) as error, connect(SearchConfig()):
        pass
    if expected is ClusterError:
        assert str(error.value).startswith(
            "address: expected a running Ray cluster, received 'this machine': The "
        )
