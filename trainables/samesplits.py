"""The splits of a task that is there already, for the same images in another size.

Which split an image gets and where it stands there follows from its pixels, which are others in another size.
"""

from __future__ import annotations

from collections import defaultdict, deque

import numpy as np
from numpy.typing import NDArray

from trainables.data.inputs.source import SPLITS, Listing
from trainables.data.task import Task
from trainables.errors import DataError


def orders_like(task: Task, listing: Listing) -> list[NDArray[np.int64]]:
    """Rows of ``listing`` for each of SPLITS: the images of ``task``, found by their ids, in its order.

    Raises:
        DataError: an image of the task is not in the listing.
    """
    places: defaultdict[str, deque[int]] = defaultdict(deque)
    for row, name in enumerate(listing.ids):
        places[name].append(row)
    orders = []
    for split in SPLITS:
        ids = [str(name) for name in task.split(split).ids]
        missing = [name for name in ids if not places[name]]
        if missing:
            raise DataError(
                f"{split}: expected the images of the prepared {task.name!r}, received none named {missing[0]!r}: "
                "the data has changed since. Run it again."
            )
        orders.append(np.array([places[name].popleft() for name in ids], dtype=np.int64))
    return orders
