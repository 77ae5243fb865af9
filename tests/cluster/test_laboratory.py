from __future__ import annotations

import time

import pytest
from laboratory import Laboratory

pytestmark = [pytest.mark.cluster]


def test_up(laboratory: Laboratory) -> None:
    laptop, head = laboratory.hosts["laptop"], laboratory.hosts["head"]
    t = time.time()
    try:
        print(laptop.run("bash", "-c", "cd ~/unfreeze/cluster && ray up -y cluster.yaml", timeout=300))
        print("UP", time.time() - t)
        for _ in range(60):
            s = head.run("ray", "status")
            if s.count("node_") >= 3 and "Pending:\n (no pending" in s:
                break
            time.sleep(2)
        print(s)
        print("JOINED", time.time() - t)
        print(head.run("bash","-c","cat ~/.bashrc; cat ~/.unfreeze/mlflow.log; tail -50 /tmp/ray/session_latest/logs/monitor*"))
    finally:
        import os
        if os.environ.get("HOLD"):
            print("holding", laboratory.folder, {n: h.pid for n, h in laboratory.hosts.items()}, flush=True)
            while os.path.exists("/tmp/w/hold"): time.sleep(1)
