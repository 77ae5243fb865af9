"""Test that trials never wait for MLflow and nothing is lost if it is slow, fails, loses answers or is missing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mlflow_service import Proxy, Server
from search_command import SearchCommand, expect_delivered, expect_whole

from search.config.environment import SERVICE_PATIENCE
from search.records.record import BackboneSummary, SearchRecord, State, TaskSummary, TrialRecord
from search.tracking.delivery import Delivery
from search.tracking.mirror import Mirror
from trainables.epoch_metrics import EpochMetrics

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

TASK = TaskSummary("digits", "d" * 64, ("null", "eins"), {"train": 20}, (8, 8), "digits")
BACKBONE = BackboneSummary("print", "default", "b" * 64, (32, 32), 60_000, ("stem", "top"))
BEGUN = datetime(2025, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("Server ü"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    proxy.start()
    yield proxy
    proxy.stop()


def search(name: str, *trials: TrialRecord) -> SearchRecord:
    config = {"seed": 0, "register_model": False}
    return SearchRecord(
        name, "val_accuracy", "maximize", TASK, BACKBONE, config, trials, len(trials), started=BEGUN
    )


def trial(number: int, epochs: int, state: State = "running") -> TrialRecord:
    curve = tuple(EpochMetrics(e, 0.1 * e, 1 / e, 1 / e, 0.1) for e in range(1, epochs + 1))
    params = {"learning_rate": 0.01 + number, "unfreeze_depth": 1}
    ended = None if state == "running" else BEGUN
    return TrialRecord(number, state, "finetune", params, 0.1, curve, started=BEGUN, ended=ended)


def delivery_through(proxy: Proxy, name: str, told: Callable[[str], object], storage: Path) -> Delivery:
    return Delivery(lambda: Mirror(proxy.uri, experiment=f"unfreeze/{name}", storage=storage), told)


def test_a_slow_server_delays_no_trial_and_gets_everything(
    proxy: Proxy, server: Server, tmp_path: Path
) -> None:
    """Delays of 2.5 s per request are below the minute that may pass without progress. The test counts requests."""
    proxy.delay, told = 2.5, list[str]()
    delivery = delivery_through(proxy, "slow", told.append, tmp_path)
    began = time.monotonic()
    for epochs in range(1, 6):
        delivery.publish(search("slow", trial(0, epochs), trial(1, epochs)))
    assert time.monotonic() - began < proxy.delay
    whole = search("slow", trial(0, 5, "complete"), trial(1, 5, "pruned"))
    delivery.finish(whole, timeout=45)
    assert told == []
    assert proxy.seen < 30
    expect_delivered(whole, server.uri)


@pytest.mark.parametrize("how", ["failing", "lossy"])
def test_a_server_that_answers_500_for_a_while_gets_everything_once_and_in_order(
    how: str, proxy: Proxy, server: Server, tmp_path: Path
) -> None:
    told, done = list[str](), list[TrialRecord]()
    heard = threading.Event()
    delivery = delivery_through(proxy, how, lambda words: (told.append(words), heard.set()), tmp_path)
    for number in range(6):
        for epoch in range(1, 4):
            delivery.publish(search(how, *done, trial(number, epoch)))
            time.sleep(0.2)
        done.append(trial(number, 3, "complete"))
        if number == 1:
            setattr(proxy, how, True)
        if number == 3:
            assert heard.wait(120)
            setattr(proxy, how, False)
    whole = search(how, *done)
    delivery.finish(whole)
    assert "its server returns errors" in told[0]
    expect_delivered(whole, server.uri)


def test_a_whole_search_without_its_server_is_delivered_later_by_the_same_command(
    server: Server, tmp_path: Path
) -> None:
    proxy = Proxy(server.port)
    arguments = ("--trials", "2", "--epochs", "2", "--tracking-uri", proxy.uri)
    command = SearchCommand(tmp_path / "never there", arguments)
    try:
        command.environment = {SERVICE_PATIENCE: "10"}
        assert command.start().wait(400) == 1, command.log()
        record = expect_whole(command.record(), 2)
        assert record.outcome is not None
        assert "2 of 2 trials have results that MLflow has not received" in command.log()
        assert "run the same command again" in command.log()
        assert "Traceback" not in command.log()
        proxy.failing, proxy.delay = True, 0.2
        proxy.start()
        command.environment = {}
        command.start()
        end = time.monotonic() + 300
        while proxy.seen < 5 and time.monotonic() < end:
            time.sleep(0.2)
        proxy.failing = False
        assert command.process is not None
        assert command.process.wait(400) == 0, command.log()
        after = expect_whole(command.record(), 2)
        assert after.outcome is not None
        assert after.outcome.val_accuracies == record.outcome.val_accuracies
        expect_delivered(after, server.uri)
    finally:
        command.kill()
        proxy.stop()
