"""The real thing: a supervisor process, its front ends, their models."""

import signal

import httpx
import psutil
def test_a_project_is_served_and_ends_in_order(project, iris, serving):
    """A deployed version answers over HTTP; SIGTERM ends everything with exit code 0."""
    project.app("iris")
    project.deploy("iris", iris)
    with serving(project) as (process, url):
        reply = httpx.post(f"{url}/iris/predict", content=b'{"input": [4.3, 2.0, 1.0, 0.1]}')
        assert reply.status_code == 200
        assert reply.json()["output"] == 0
        assert reply.headers["X-MLGuard-Version"] == "v1"
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert not [one for one in children if one.is_running()]
