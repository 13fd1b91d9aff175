"""Operations in the log and in the metrics: each once, with its id, its time and how it ended; what Prometheus makes of it."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from ovsnet.api import create_app
from ovsnet.metrics import Metrics
from ovsnet.operations import OK, Operation, add_request_id, behind, observe_nothing
from tests.fake_controller import FakeController, as_root

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
DATA = Path(__file__).with_name("data")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="9.9", endpoints=0)


@pytest.fixture
def api(metrics: Metrics) -> FlaskClient:
    controller = FakeController()
    app = create_app(controller, controller, controller, version="9.9", observe=metrics.observe, metrics=metrics.render)
    return as_root(app)


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Name and label values of each sample, sorted by the labels' names."""
    return {
        (one.name, *(value for _, value in sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for one in family.samples
    }


def test_an_operation_is_told_once_with_its_id_and_result() -> None:
    seen: list[tuple[Any, ...]] = []
    with capture_logs() as lines:
        operation = Operation("cni", "ADD", lambda *what: seen.append(what), request_id="mine-1")
        during = add_request_id(None, "info", {"event": "on the way"})
        operation.end(OK)
        operation.tell(container="c1", netns="")
    assert during["request_id"] == "mine-1"
    assert "request_id" not in add_request_id(None, "info", {"event": "afterwards"})
    (line,) = lines
    assert (line["event"], line["log_level"], line["result"], line["request_id"]) == ("cni ADD", "info", "ok", "mine-1")
    assert line["container"] == "c1"
    assert "netns" not in line
    ((edge, name, result, seconds),) = seen
    assert (edge, name, result) == ("cni", "ADD", "ok")
    assert line["ms"] == round(seconds * 1e3, 1)


def test_what_is_done_behind_an_answer_waits_for_it_and_carries_the_id() -> None:
    done: list[str] = []

    def breaks() -> None:
        raise ValueError("a defect")

    def act() -> None:
        done.append(add_request_id(None, "info", {}).get("request_id", ""))

    behind(act)  # no operation: now
    assert done.pop() == ""
    later = Operation("docker", "Join", observe_nothing, request_id="later", first=True)
    behind(breaks)
    behind(act)
    later.end(OK)
    assert not done
    at_once = Operation("rest", "network", observe_nothing, request_id="at-once")
    behind(act)
    assert done.pop() == "at-once"
    at_once.end(OK)
    with capture_logs() as lines:
        later.complete()
    assert done == ["later"]
    assert [(line["event"], line["log_level"]) for line in lines] == [("docker Join broke behind its answer", "error")]


def test_a_failure_is_a_warning_whatever_was_asked_for() -> None:
    with capture_logs() as lines:
        operation = Operation("rest", "show_pool", observe_nothing)
        operation.end("pool-not-found")
        operation.tell(logging.DEBUG)
    assert (lines[0]["log_level"], lines[0]["result"]) == ("warning", "pool-not-found")


@pytest.mark.parametrize("given", ["", "a b", "x\ny", "x" * 65, "-x", '"', "é"])
def test_an_id_that_would_spoil_the_log_is_not_taken(given: str) -> None:
    operation = Operation("rest", "x", observe_nothing, request_id=given)
    operation.end(OK)
    assert re.fullmatch("[0-9a-f]{8}", operation.id)


def test_rest_operations(api: FlaskClient, metrics: Metrics) -> None:
    with capture_logs() as lines:
        made = api.post("/v1/pools", json={"subnet": "10.1.0.0/24", "name": "a"}, headers={"X-Request-Id": "mine"})
        shown = api.get("/v1/pools/a")
        missing = api.get("/v1/pools/none%0Aforged")
        wrong = api.post("/v1/pools", json={"subnet": "10.1.0.1/24", "labels": {"password": "hunter2"}})
        nowhere = api.get("/nowhere")
    assert made.headers["X-Request-Id"] == "mine"
    assert len({one.headers["X-Request-Id"] for one in (made, shown, missing, wrong, nowhere)}) == 5
    assert [(one["event"], one["log_level"], one["result"], one["status"]) for one in lines] == [
        ("rest create_pool", "info", "ok", 201),
        ("rest show_pool", "debug", "ok", 200),
        ("rest show_pool", "warning", "pool-not-found", 404),
        ("rest create_pool", "warning", "invalid-request", 400),
        ("rest unknown", "warning", "not-found", 404),
    ]
    assert lines[2]["path"] == "/v1/pools/none%0Aforged"
    assert "hunter2" not in json.dumps(lines)
    found = samples(metrics)
    assert found["ovsnet_operation_seconds_count", "rest", "create_pool", "ok"] == 1
    assert found["ovsnet_operation_seconds_count", "rest", "show_pool", "pool-not-found"] == 1
    scraped = api.get("/metrics")
    assert scraped.content_type.startswith("text/plain; version=0.0.4")
    assert b'ovsnet_info{version="9.9"} 1.0' in scraped.data


def test_drift_and_repairs_are_counted(metrics: Metrics) -> None:
    metrics.drift("port-missing")
    metrics.drift("port-wrong", OK)
    metrics.drift("port-wrong", "link-failed")
    found = samples(metrics)
    assert found["ovsnet_drift_total", "port-missing"] == 1
    assert found["ovsnet_drift_total", "port-wrong"] == 2
    assert found["ovsnet_repairs_total", "port-wrong", "link-failed"] == 1
    assert ("ovsnet_repairs_total", "port-missing", "ok") not in found


def test_lines_for_machines_are_json_with_the_id() -> None:
    script = (
        "import logging; from ovsnet.daemon import configure_logging; configure_logging('info', 'auto')\n"
        "from ovsnet.operations import Operation, observe_nothing\n"
        "operation = Operation('cni', 'ADD', observe_nothing, 'mine')\n"
        "logging.getLogger('ovsnet.link').info('on the way')\n"
        "operation.end('ok'); operation.tell(name='a\\nb')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    way, line = map(json.loads, done.stderr.splitlines())
    assert (way["event"], way["request_id"], way["level"]) == ("on the way", "mine", "info")
    assert (line["event"], line["request_id"], line["name"]) == ("cni ADD", "mine", "a\nb")


# -- what is under docs/monitoring ------------------------------------------------------------------------------------


def names_in(text: str) -> set[str]:
    """Metrics that a text speaks of, as their families are called."""
    return {
        re.sub(r"_(total|bucket|count|sum)$", "", name) for name in re.findall(r"\bovsnet_(?!\.)[a-z_]+[a-z]\b", text)
    }


def test_documents_rules_and_dashboard_name_the_metrics_that_there_are() -> None:
    documented = names_in((MONITORING.parent / "monitoring.md").read_text(encoding="utf-8"))
    dashboard = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    source = (Path(__file__).parents[2] / "ovsnet" / "metrics.py").read_text(encoding="utf-8")
    made = names_in(source) | {f"ovsnet_endpoint_{name}" for name in re.findall(r'"((?:sent|received)_\w+)"', source)}
    assert names_in(" ".join(expressions)) <= made
    assert names_in((MONITORING / "alerts.yml").read_text(encoding="utf-8")) <= made
    spoken_of = documented | {
        f"ovsnet_endpoint_{way}_{what}" for way in ("sent", "received") for what in ("packets", "dropped")
    }
    assert spoken_of == made


@pytest.mark.parametrize(
    "arguments", [("check", "rules", MONITORING / "alerts.yml"), ("test", "rules", DATA / "alerts_test.yml")]
)
def test_rules_work(promtool: str, arguments: tuple[str | Path, ...]) -> None:
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboards_expressions_can_be_read(promtool: str, tmp_path: Path) -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    filled = [re.sub(r"\$(instance|network)", ".*", one.replace("$__rate_interval", "5m")) for one in expressions]
    rules = [{"record": f"expression:{number}", "expr": one} for number, one in enumerate(filled)]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    done = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all("$" not in one for one in filled)


def test_prometheus_takes_what_is_rendered(promtool: str, metrics: Metrics) -> None:
    metrics.observe("cni", "ADD", "ok", 0.004)
    metrics.drift("port-wrong", OK)
    done = subprocess.run(
        [promtool, "check", "metrics"], input=metrics.render(), capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
