"""The OpenAPI document, asked by schemathesis: no 5xx, no traceback, only what it announces."""

import hypothesis
import pytest
import schemathesis
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mlguard.serving.access import admin_token

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def asked(iris, project_of, fronted):
    """A front end with a live version and one without; its document and its token."""
    made = project_of("openapi")
    made.app("iris")
    made.app("empty", default_output="{}")
    made.deploy("iris", iris, name="v1")
    with fronted(made) as (_, url):
        yield url, schemathesis.openapi.from_url(f"{url}/openapi.json"), admin_token(made.settings)


def fuzz(asked, n, seed):
    """Ask every operation ``n`` times, half of them with the admin token and a real app."""
    url, schema, token = asked
    found = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=n,
            deadline=None,
            database=None,
            derandomize=False,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(
            case=operation.as_strategy(),
            app=hypothesis.strategies.sampled_from(["iris", "empty", None]),
            admin=hypothesis.strategies.booleans(),
        )
        def ask(case, app, admin):
            if app is not None and "app_name" in case.path_parameters:
                case.path_parameters["app_name"] = app
            headers = {"Authorization": f"Bearer {token}"} if admin else {}
            reply = case.call(base_url=url, headers=headers)
            # 503 is the one that is promised: not ready, overloaded.
            assert reply.status_code in (*range(200, 500), 503)
            assert "Traceback" not in reply.text
            case.validate_response(reply, checks=CHECKS)

        ask()
        found += 1
    return found


@pytest.mark.slow
def test_every_operation_answers_what_it_announces(asked):
    """A few made-up requests for each operation, good and bad."""
    assert fuzz(asked, 6, seed=1) >= 15


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4))
def test_every_operation_at_length(asked, seed):
    """The same with hundreds of requests for each."""
    assert fuzz(asked, 300, seed=seed) >= 15
