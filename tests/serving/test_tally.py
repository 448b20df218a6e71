"""Counts by the batch come to the same figures as counts one by one."""

import asyncio
import random

from prometheus_client.parser import text_string_to_metric_families

from mlguard.serving.answers import SLO_MISSED
from mlguard.serving.metrics import Metrics
from mlguard.serving.tally import Tally


def figures(metrics, name):
    families = {one.name: one for one in text_string_to_metric_families(metrics.render().decode())}
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for one in families[name].samples
        if not one.name.endswith("_created")
    }


def test_the_histogram_is_what_observe_would_have_made():
    """Bucket by bucket, at the bounds too; the sum as well."""
    choose = random.Random(0)
    times = [0.001, 0.0025, 0.01, 10, 11, 0.0, *(choose.expovariate(50) for _ in range(500))]
    ours, theirs = Metrics(), Metrics()

    async def count():
        tally = Tally(ours, "app")
        for start in range(0, len(times), 7):
            batch = times[start : start + 7]
            tally.requests("v1", batch, [None] * len(batch))
        tally.settle()

    asyncio.run(count())
    latency = theirs.latency.labels("app")
    for one in times:
        latency.observe(one)
    found, wanted = (figures(one, "mlguard_request_seconds") for one in (ours, theirs))
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert abs(found[key] - value) < 1e-9, key


def test_rows_and_requests_are_counted_by_what_became_of_them():
    """A batch counts once as a request and for each row; /metrics is told all of it."""
    metrics = Metrics()

    async def count():
        tally = Tally(metrics, "app")
        tally.requests("v1", [0.1, 0.1], [None, SLO_MISSED, None])
        tally.refused(400)
        predictions = figures(metrics, "mlguard_predictions")
        requests = figures(metrics, "mlguard_requests")
        tally.settle()
        return predictions, requests

    predictions, requests = asyncio.run(count())
    by_reason = {dict(labels)["reason"]: value for (_, labels), value in predictions.items()}
    assert by_reason == {"": 2, SLO_MISSED: 1}
    by_status = {dict(labels)["status"]: value for (_, labels), value in requests.items()}
    assert by_status == {"200": 2, "400": 1}
