"""Ray's own processes did not start in time, which it tells by an exception of no type of its own.

To make it really happen takes a machine that stands still for half a minute, so its words are raised in its place.
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
def test_only_what_ray_says_of_its_start_is_an_error_of_the_cluster(
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
