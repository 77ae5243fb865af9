"""Nodes in panel, plain lines and status: resources in use, and where trials run."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from search.commands.status import status_page
from search.execution.cluster.node_usage import NodeUsage
from search.execution.cluster.nodes import node_names
from search.records.record import BackboneSummary, SearchRecord, State, TaskSummary, TrialRecord
from search.views.node_table import nodes_summary
from search.views.plain import PlainView
from search.views.terminal import PanelState, TerminalView, panel
from trainables.epoch_metrics import EpochMetrics

NODES = tuple(NodeUsage(f"worker-{n}", float(n % 5), 4.0, 0.5 * (n % 3), 1.0) for n in range(1, 4))
MANY = tuple(NodeUsage(f"knoten-ü-{n:04}.cluster.example.org", 2.0, 64.0, 1.0, 8.0) for n in range(1000))


def trial(number: int, state: State, node: str | None) -> TrialRecord:
    curve = tuple(EpochMetrics(e, 0.1 * e, 1 / e, 1 / e, 0.5) for e in range(1, 5))
    params = {"unfreeze_depth": 1, "learning_rate": 0.001, "head_units": 64, "augmentation_strength": 0.5}
    return TrialRecord(number, state, "finetune", params, 0.4, curve, node=node)


def record(*trials: TrialRecord, address: str | None = "auto") -> SearchRecord:
    task = TaskSummary("t", "d", ("a", "b"), {"train": 10}, (8, 8), "here")
    backbone = BackboneSummary("print", "default", "d", (32, 32), 1000, ("one", "two"))
    config = {"epochs": 10, "method": "finetune", "address": address, "time_budget": None}
    return SearchRecord("größe", "val_accuracy", "maximize", task, backbone, config, trials, 24)


RUNNING = record(
    trial(0, "complete", "worker-1"),
    trial(1, "running", "worker-2"),
    trial(2, "running", "worker-2"),
    trial(3, "running", None),
)


def drawn(
    shown: SearchRecord | None, nodes: tuple[NodeUsage, ...], width: int = 100, height: int = 30
) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(panel(PanelState(shown, None, None, 75.0, 0.5, nodes), console))
    return captured.get()


def test_the_panel_shows_used_resources_and_which_trial_runs_where() -> None:
    text = drawn(RUNNING, NODES)
    assert "nodes  3 nodes · 6 of 12 CPUs and 1.5 of 3 GPUs in use" in text
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("worker-")}
    assert "2/4 CPU" in lines["worker-2"]
    assert "1/1 GPU" in lines["worker-2"]
    assert "trials 1 2" in lines["worker-2"]
    assert next(iter(lines)) == "worker-2"  # the busiest
    (row,) = [line for line in text.splitlines() if line.split()[:2] == ["1", "running"]]
    assert "worker-2" in row


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 12), (20, 6), (10, 2), (300, 90)])
@pytest.mark.parametrize("nodes", [NODES, NODES[:1], MANY])
def test_the_panel_fits_the_terminal(width: int, height: int, nodes: tuple[NodeUsage, ...]) -> None:
    many = record(*(trial(n, "running", nodes[n % len(nodes)].name) for n in range(200)))
    for shown in (None, many, RUNNING):
        lines = drawn(shown, nodes, width, height).splitlines()
        assert len(lines) <= height
        assert all(len(line) <= width for line in lines)


def test_many_nodes_are_counted_and_the_trials_are_still_shown() -> None:
    text = drawn(RUNNING, MANY, 120, 40)
    assert "1,000 nodes · 2000 of 64000 CPUs" in text
    assert "and 991 nodes more" in text
    assert "running" in text


def test_on_one_machine_no_nodes_are_shown() -> None:
    alone = replace(RUNNING, config={**RUNNING.config, "address": None})
    text = drawn(alone, ())
    assert "nodes" not in text
    assert "worker-2" not in text


def test_plain_lines_report_nodes_that_join_and_leave() -> None:
    stream = io.StringIO()
    view = PlainView(stream)
    for nodes in (NODES[:1], NODES[:1], NODES, (replace(NODES[0], cpus_used=4.0), *NODES[1:]), NODES[:2]):
        view.nodes(nodes)
    lines = stream.getvalue().splitlines()
    assert lines == [nodes_summary(NODES[:1]), nodes_summary(NODES), nodes_summary(NODES[:2])]
    view.update(RUNNING)
    view.update(replace(RUNNING, trials=(*RUNNING.trials[:2], trial(2, "complete", "worker-2"))))
    assert "on worker-2  " in stream.getvalue().splitlines()[-1]


def test_the_terminal_view_draws_the_newest_state_of_the_nodes() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    view = TerminalView(console)
    view.nodes(NODES)
    view.update(RUNNING)
    with console.capture() as captured:
        console.print(view.draw())
    view.close()
    assert "3 nodes" in captured.get()


def test_status_shows_where_trials_run() -> None:
    text = status_page(RUNNING).plain
    assert "running   3 on a node not yet known; 1, 2 on worker-2" in text
    assert "worker-2" not in status_page(replace(RUNNING, config={})).plain


def test_names_of_nodes_are_shortened_as_long_as_they_differ() -> None:
    def node(number: int, host: str, address: str, name: str = "") -> dict[str, str]:
        return {
            "NodeID": f"{number:032x}"[::-1],
            "NodeManagerHostname": host,
            "NodeManagerAddress": address,
            "NodeName": name or address,
        }

    assert list(node_names([node(1, "a", "10.0.0.1"), node(2, "b", "10.0.0.2")]).values()) == ["a", "b"]
    assert list(node_names([node(1, "a", "10.0.0.1", "one"), node(2, "a", "10.0.0.1", "two")]).values()) == [
        "one",
        "two",
    ]
    assert list(node_names([node(1, "a", "10.0.0.1"), node(2, "a", "10.0.0.2")]).values()) == [
        "a (10.0.0.1)",
        "a (10.0.0.2)",
    ]
    assert list(node_names([node(1, "a", "10.0.0.1"), node(2, "a", "10.0.0.1")]).values()) == [
        "a/100000",
        "a/200000",
    ]
    assert node_names([]) == {}
