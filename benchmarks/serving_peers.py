"""The servers that mlguard's is measured against, each in its own words, and the models.

``python serving_peers.py NAME MODELS MODEL PORT`` serves one; it runs in the virtual environment
of that server, so this file imports nothing that one of them lacks.  Settings are each server's
own for small models: batches of up to 64 rows after at most 1 ms, one worker, no access log.
"""

import json
import os
import sys
from pathlib import Path

try:
    from mosec import Worker as MosecWorker
except ImportError:
    MosecWorker = object
try:
    from litserve import LitAPI
except ImportError:
    LitAPI = object

MAX_BATCH, WAIT_S = 64, 0.001
#: Tells processes that a server starts by itself which model it is.
FILE = "MLGUARD_BENCHMARK_MODEL"


def train(folder):
    """Write iris, rf and svm with 48 rows each and what their models answer."""
    import joblib
    from sklearn.datasets import load_breast_cancer, load_digits, load_iris
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    for name, data, model in (
        ("iris", load_iris, make_pipeline(StandardScaler(), LogisticRegression())),
        ("rf", load_breast_cancer, RandomForestClassifier(100, n_jobs=1, random_state=0)),
        ("svm", load_digits, make_pipeline(StandardScaler(), LinearSVC(random_state=0))),
    ):
        rows, target = data(return_X_y=True)
        model.fit(rows, target)
        joblib.dump(model, folder / f"{name}.joblib")
        some = rows[:: len(rows) // 48][:48]
        known = {"rows": some.tolist(), "want": model.predict(some).tolist()}
        (folder / f"{name}.json").write_text(json.dumps(known))


def load(models, model):
    import joblib

    return joblib.load(Path(models) / f"{model}.joblib")


def plain(models, model, port):
    """A FastAPI app as one would write it."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Body(BaseModel):
        input: list[float]

    estimator = load(models, model)
    app = FastAPI()

    @app.post("/predict")
    def predict(body: Body) -> dict:
        return {"output": int(estimator.predict([body.input])[0])}

    uvicorn.run(app, port=int(port), log_level="warning", access_log=False)


def asgi(_models, _model, port):
    """No peer but a limit: ASGI with nothing in it but the JSON."""
    import msgspec
    import uvicorn

    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"12")],
    }
    end = {"type": "http.response.body", "body": b'{"output":0}'}

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        message = await receive()
        body = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        msgspec.json.decode(body)
        await send(start)
        await send(end)

    options = {"log_level": "warning", "access_log": False, "lifespan": "off"}
    uvicorn.run(app, port=int(port), **options)


class MosecModel(MosecWorker):
    """The model in a process that mosec starts."""

    def __init__(self):
        super().__init__()
        self.model = load(*os.environ[FILE].rsplit("/", 1))

    def deserialize(self, data):
        return json.loads(data)["input"]

    def serialize(self, data):
        return json.dumps({"output": data}).encode()

    def forward(self, data):
        return self.model.predict(data).tolist()


def mosec(models, model, port):
    """mosec: Rust in front, the model in a process."""
    from mosec import Server

    os.environ[FILE] = f"{models}/{model}"
    sys.argv = ["mosec", "--address", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    server = Server()
    server.append_worker(MosecModel, num=1, max_batch_size=MAX_BATCH, max_wait_time=1)
    server.run()


class LitModel(LitAPI):
    """The model in a process that LitServe starts."""

    def setup(self, device):
        del device
        self.model = load(*os.environ[FILE].rsplit("/", 1))

    def decode_request(self, request):
        return request["input"]

    def predict(self, rows):
        return self.model.predict(rows).tolist()

    def encode_response(self, output):
        return {"output": output}


def litserve(models, model, port):
    """LitServe with its fast queue."""
    import litserve as ls

    os.environ[FILE] = f"{models}/{model}"
    api = LitModel(max_batch_size=MAX_BATCH, batch_timeout=WAIT_S)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(host="127.0.0.1", port=int(port), log_level="error", generate_client_file=False)


def mlserver(models, model, port):
    """MLServer in one process, asked by its own protocol."""
    import tempfile

    from mlserver.cli.main import main

    folder = Path(tempfile.mkdtemp())
    settings = {
        "http_port": int(port),
        "grpc_port": int(port) + 1,
        "metrics_port": int(port) + 2,
        "host": "127.0.0.1",
        "parallel_workers": 0,
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    about = {
        "name": "app",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "max_batch_size": MAX_BATCH,
        "max_batch_time": WAIT_S,
        "parameters": {"uri": str(Path(models) / f"{model}.joblib")},
    }
    (folder / "model-settings.json").write_text(json.dumps(about))
    sys.argv = ["mlserver", "start", str(folder)]
    main()


PEERS = {"plain": plain, "asgi": asgi, "mosec": mosec, "litserve": litserve, "mlserver": mlserver}

if __name__ == "__main__":
    PEERS[sys.argv[1]](*sys.argv[2:])
