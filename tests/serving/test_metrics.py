"""/metrics: every promised figure is there, in a form that Prometheus' own parser reads."""

import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from mlguard.registry.tables import outbox
from mlguard.results import MonitorResult, Verdict


def figures(url):
    """The figures by name and labels."""
    found = {}
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics").text):
        for one in family.samples:
            found[one.name, frozenset(one.labels.items())] = one.value
    return found


def of(found, name, **labels):
    """The value of one figure."""
    return found[name, frozenset(labels.items())]


def test_every_promised_figure(project, constant, fronted):
    """Requests, latency, batch sizes, defaults, queue, monitors, outbox, cache: told and right."""
    project.app("app", more="\n[model]\nallow_pickle = true\n")
    project.app("empty")
    project.deploy("app", constant(1), name="v1")
    verdict = MonitorResult(
        id="data_drift.psi", verdict=Verdict.PASSED, summary="fine", subject="x0", value=0.25
    )
    project.registry.record_monitor_result("app", verdict)
    project.registry.outbox.enqueue("app", "rolled_back", {})
    with project.registry.database.write() as connection:
        connection.execute(update(outbox).values(created_at=time.time() - 61))
    with fronted(project) as (_, url):
        for _ in range(3):
            httpx.post(f"{url}/app/predict", json={"input": [0.5, 0.5]})
        query_id = httpx.post(f"{url}/app/predict", json={"input_batch": [[0.5, 0.5]] * 5}).json()[
            "batch_predictions"
        ][0]["query_id"]
        httpx.post(f"{url}/app/predict", content=b"[")
        httpx.post(f"{url}/empty/predict", json={"input": [1]})
        httpx.post(f"{url}/app/update", json={"query_id": query_id, "label": 1})
        found = figures(url)
    assert of(found, "mlguard_requests_total", app="app", status="200") == 4
    assert of(found, "mlguard_requests_total", app="app", status="400") == 1
    assert of(found, "mlguard_predictions_total", app="app", version="v1", reason="") == 8
    why = "No connected models found for query"
    assert of(found, "mlguard_predictions_total", app="empty", version="none", reason=why) == 1
    assert of(found, "mlguard_request_seconds_count", app="app") == 4
    assert of(found, "mlguard_request_seconds_bucket", app="app", le="+Inf") == 4
    assert of(found, "mlguard_batch_rows_sum", app="app") == 8
    assert of(found, "mlguard_batch_rows_bucket", app="app", le="1.0") >= 3
    assert of(found, "mlguard_labels_total", app="app", result="stored") == 1
    assert of(found, "mlguard_queue_rows", app="app") == 0
    assert of(found, "mlguard_generation", app="app") == 1
    assert of(found, "mlguard_serving", app="app") == 1
    assert of(found, "mlguard_serving", app="empty") == 0
    assert of(found, "mlguard_registry_up") == 1
    assert 60 < of(found, "mlguard_outbox_oldest_seconds") < 600
    drift = {"app": "app", "monitor": "data_drift.psi", "subject": "x0"}
    assert of(found, "mlguard_monitor_value", **drift) == pytest.approx(0.25)


def test_cache_hits_are_counted(constant, settings_of):
    """Asked twice, answered once by the model and once from memory."""
    from mlguard.serving.embedded import served

    settings = settings_of(
        name="app", app={"slo_ms": 5000, "cache_mib": 1}, model={"allow_pickle": True}
    )
    bundle = constant(1)
    with served(settings, bundle.json, bundle.path) as url:
        for _ in range(2):
            httpx.post(f"{url}/app/predict", json={"input": [0.5, 0.5]})
        cache = {
            dict(labels)["result"]: value
            for (name, labels), value in figures(url).items()
            if name == "mlguard_cache_total"
        }
    assert (cache["hit"], cache["miss"]) == (1, 1)
