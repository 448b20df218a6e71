"""How fast the server is, beside a plain FastAPI app, the limit of ASGI, and other servers.

::

    python -m benchmarks.serving                         iris, 1 and 64 connections
    python -m benchmarks.serving --peers /tmp/venvs      also every server found in those
                                                         virtual environments: mosec, litserve,
                                                         mlserver (/tmp/venvs/mosec, …)
    python -m benchmarks.serving --models iris,rf --rounds 4 --seconds 5
    python -m benchmarks.serving --paper                 the shapes of the Clipper paper

Needs ``wrk``.  Every target is started anew for each round, its answers are checked first, and
the rounds are interleaved, forwards and backwards, so that a machine that is busy for a while is
busy for everybody.  What counts is the ratio of two targets in one run, and the processor time of
the whole process tree per request; requests a second belong to the machine.

Prints Markdown, and asserts nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks import serving_peers

HERE = Path(__file__).resolve().parent
OURS = (
    f"{sys.executable} -W ignore -m benchmarks.serving_target --models {{models}} --port {{port}}"
)
PEER = "{python} -W ignore {peers} {name} {{models}} {{model}} {{port}}"


@dataclasses.dataclass(frozen=True)
class Target:
    """A server: how it is started, and where it answers."""

    command: str
    path: str = "/app/predict"
    constant: bool = False
    v2: bool = False

    def body(self, row: list[float]) -> str:
        if self.v2:
            tensor = {"name": "x", "shape": [1, len(row)], "datatype": "FP64", "data": row}
            return json.dumps({"inputs": [tensor]}, separators=(",", ":"))
        return json.dumps({"input": row}, separators=(",", ":"))


def targets(venvs: Path | None) -> dict[str, Target]:
    """Return what can be measured here."""
    found = {
        "mlguard": Target(OURS + " --model {model}"),
        "mlguard, guard off": Target(OURS + " --model {model} --guard off"),
        "mlguard, own process": Target(OURS + " --model {model} --runtime original"),
        "mlguard, own process, guard off": Target(
            OURS + " --model {model} --runtime original --guard off"
        ),
        "mlguard, ordinary route": Target(OURS + " --model {model} --route framework"),
    }
    peers = HERE / "serving_peers.py"
    here = dict.fromkeys(("plain", "asgi"), Path(sys.executable))
    for name in ("mosec", "litserve", "mlserver"):
        python = venvs / name / "bin" / "python" if venvs else None
        if python is not None and python.exists():
            here[name] = python
    for name, python in here.items():
        command = PEER.format(python=python, peers=peers, name=name)
        path = {"mosec": "/inference", "mlserver": "/v2/models/app/infer"}.get(name, "/predict")
        found[name] = Target(command, path, constant=name == "asgi", v2=name == "mlserver")
    return found


class Server:
    """A target that runs."""

    def __init__(self, target: Target, models: Path, model: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.target = target
        self.known = json.loads((models / f"{model}.json").read_text())
        command = target.command.format(models=models, model=model, port=self.port)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self.process = subprocess.Popen(
            command.split(),
            cwd=HERE.parent,
            env=os.environ | threads,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ask(self, row: list[float]) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            kind = {"Content-Type": "application/json"}
            connection.request("POST", self.target.path, self.target.body(row), kind)
            reply = connection.getresponse()
            text = reply.read()
            return json.loads(text) if reply.status == 200 else None
        except OSError:
            return None
        finally:
            connection.close()

    def check(self) -> None:
        """Wait until it answers by its model, and hold the answers to the model's own."""
        deadline = time.monotonic() + 90
        while (found := self.ask(self.known["rows"][0])) is None or found.get("default"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.log.seek(0)
                raise RuntimeError(self.log.read().decode()[-2000:])
            time.sleep(0.05)
        if self.target.constant:
            return
        for row, wanted in zip(self.known["rows"], self.known["want"], strict=True):
            found = self.ask(row)
            given = found["outputs"][0]["data"][0] if self.target.v2 else found["output"]
            if int(given) != wanted:
                raise RuntimeError(f"{row}: {found}, expected {wanted}")

    def tree(self) -> list[psutil.Process]:
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def cpu(self) -> float:
        spent = 0.0
        for one in self.tree():
            try:
                times = one.cpu_times()
            except psutil.NoSuchProcess:
                continue
            spent += times.user + times.system
        return spent

    def memory_mib(self) -> float:
        return sum(one.memory_full_info().pss for one in self.tree()) / 2**20

    def measure(self, connections: int, seconds: float, bodies: list[str] | None = None) -> Any:
        """Load it by wrk."""
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(wrk_script(bodies or [self.target.body(self.known["rows"][0])]))
            script.flush()
            command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
            url = f"http://127.0.0.1:{self.port}{self.target.path}"
            before = self.cpu()
            out = subprocess.run(
                [*command, "-s", script.name, url], capture_output=True, text=True, check=True
            ).stdout
            spent = self.cpu() - before
        found = json.loads(out.split("JSON ")[1])
        good = max(1, found["requests"] - found["errors"])
        found["rps"] = good / found["seconds"]
        found["cpu_us"] = spent / good * 1e6
        found["mib"] = self.memory_mib()
        return found

    def stop(self) -> None:
        everybody = self.tree() if self.process.poll() is None else []
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        for one in everybody:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait()
        self.log.close()


def wrk_script(bodies: list[str]) -> str:
    """Return what wrk asks, one body after the other."""
    lines = ",\n".join(f"[=[{body}]=]" for body in bodies)
    turn = (
        "local n = 0\nrequest = function() n = n % #bodies + 1\n"
        "return wrk.format(nil, nil, nil, bodies[n]) end\n"
        if len(bodies) > 1
        else "wrk.body = bodies[1]\n"
    )
    return (
        f"local bodies = {{{lines}}}\n"
        'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n' + turn + "done = "
        "function(s, latency, requests)\nlocal e = s.errors\nio.write(string.format("
        '\'JSON {"requests":%d,"seconds":%f,"p50":%.3f,"p99":%.3f,"errors":%d}\\n\', s.requests, '
        "s.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, "
        "e.status + e.connect + e.read + e.write + e.timeout))\nend\n"
    )


def middle(runs: list[Any], key: str) -> float:
    return statistics.median(one[key] for one in runs)


def compare(options: argparse.Namespace, models: Path, chosen: dict[str, Target]) -> None:
    """Measure all targets against each other and print a table for each load."""
    loads = [int(one) for one in options.connections.split(",")]
    for model in options.models.split(","):
        runs: dict[tuple[str, int], list[Any]] = {}
        for turn in range(options.rounds):
            for name in list(chosen) if turn % 2 == 0 else list(reversed(chosen)):
                server = Server(chosen[name], models, model)
                try:
                    server.check()
                    server.measure(32, 1)
                    for connections in loads:
                        found = server.measure(connections, options.seconds)
                        runs.setdefault((name, connections), []).append(found)
                        print(f"{turn} {model} {name} c{connections}: {found}", file=sys.stderr)
                except RuntimeError as error:
                    print(f"{name}: {error}", file=sys.stderr)
                finally:
                    server.stop()
        for connections in loads:
            title = "connection" if connections == 1 else "connections"
            print(f"\n### {model}, {connections} {title}\n")
            print(
                "| server | requests/s | mlguard's is … times that | p50 ms | p99 ms "
                "| CPU µs per request | MiB | errors |\n|---|---|---|---|---|---|---|---|"
            )
            ours = runs.get(("mlguard", connections))
            for name in chosen:
                one = runs.get((name, connections))
                if not one or not ours:
                    continue
                rps = middle(one, "rps")
                print(
                    f"| {name} | {rps:,.0f} | {middle(ours, 'rps') / rps:.2f} "
                    f"| {middle(one, 'p50'):.2f} | {middle(one, 'p99'):.1f} "
                    f"| {middle(one, 'cpu_us'):.1f} | {middle(one, 'mib'):.0f} "
                    f"| {sum(run['errors'] for run in one)} |"
                )


def paper(options: argparse.Namespace, models: Path) -> None:
    """Measure the shapes of the Clipper paper, as ratios."""
    own = OURS + " --model {model} --runtime original"
    shapes = {
        # Section 4.3.1: a linear SVM with and without batches.
        "batches, linear SVM": ("svm", own + " --largest-batch 1", own, 64, 1),
        # Section 4.3.2: waiting for a batch helps where a model's call is dear.
        "waiting 2 ms, random forest": ("rf", own, own + " --set app.max_wait_ms=2", 64, 1),
        "waiting 2 ms, linear SVM": ("svm", own, own + " --set app.max_wait_ms=2", 64, 1),
        # Section 4.2: a cache, where rows come again.
        "cache, random forest, 48 rows": ("rf", own, own + " --set app.cache_mib=16", 64, 48),
    }
    print("\n| shape | without | with | ratio |\n|---|---|---|---|")
    for name, (model, without, given, connections, rows) in shapes.items():
        found: dict[str, list[Any]] = {without: [], given: []}
        for turn in range(options.rounds):
            for command in (without, given) if turn % 2 == 0 else (given, without):
                target = Target(command)
                server = Server(target, models, model)
                try:
                    server.check()
                    bodies = [target.body(row) for row in server.known["rows"][:rows]]
                    server.measure(32, 1, bodies)
                    found[command].append(server.measure(connections, options.seconds, bodies))
                finally:
                    server.stop()
        low, high = (middle(found[one], "rps") for one in (without, given))
        print(f"| {name} | {low:,.0f} req/s | {high:,.0f} req/s | {high / low:.2f} |")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="virtual environments")
    parser.add_argument("--models", default="iris", help="of iris, rf, svm")
    parser.add_argument("--connections", default="1,64")
    parser.add_argument("--targets", default="", help="only these, separated by semicolons")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--paper", action="store_true", help="the shapes of the Clipper paper")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("this needs wrk (apt-get install wrk)")
    with tempfile.TemporaryDirectory(prefix="mlguard-benchmark-") as folder:
        models = Path(folder)
        serving_peers.train(models)
        if options.paper:
            paper(options, models)
            return
        chosen = targets(options.peers)
        if options.targets:
            wanted = options.targets.split(";")
            chosen = {name: one for name, one in chosen.items() if name in wanted}
        compare(options, models, chosen)


if __name__ == "__main__":
    main()
