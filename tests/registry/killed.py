"""A process that is killed where it is told: run by ``test_kills.py``, never imported.

It imports everything once and then forks a child per line of its input, so that a kill costs
milliseconds.  A line is JSON: ``{"root", "command", "point"}``; the child opens the registry
below ``root``, gives the command, and kills itself with SIGKILL at the ``point``-th point that
it passes.  Points are: before every SQL statement, before and after every commit, before every
rename and before and after every fsync.  ``point`` 0 passes them all.

The answer to a line is JSON: how the child ended, the points it passed, and whether the command
had returned (was acknowledged) before it ended.
"""

import hashlib
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sqlalchemy import event

from mlguard.config import ProjectSettings
from mlguard.registry import Registry, State, Version
from mlguard.results import CheckResult, GateDecision, Verdict

#: Long enough after the registry was prepared for every lease in it to have ended.
NOW = 1_790_000_100.0


@dataclass(frozen=True)
class Bundle:
    model_sha256: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.model_sha256} 0.5".encode()).hexdigest()

    def to_json(self) -> dict:
        return {"model_sha256": self.model_sha256}


def give(registry: Registry, root: Path, command: str) -> None:
    """Give one command as a process of its own would."""
    if command == "register":
        file = root / "new"
        file.write_text("new")
        bundle = Bundle(hashlib.sha256(b"new").hexdigest())
        registry.register("iris", name=None, manifest=bundle, model_file=file)
    elif command == "gate":
        judge(registry, registry.version("iris", "v3"))
    elif command in ("stage", "promote"):
        version = registry.version("iris", "v3")
        if command == "promote":
            # What came before the command under test is not counted.
            operation = registry.begin("iris", version.id, key="k", replace_candidate=True)
            if operation.result is None:
                registry.stage(operation)
            Points.armed = True
            registry.promote(operation, reason="go")
        else:
            Points.armed = True
            operation = registry.begin("iris", version.id, key="k", replace_candidate=True)
            registry.stage(operation)
    elif command == "rollback":
        registry.rollback("iris", automatic=True, reason="bad", expected_generation=2)
    elif command == "manual":
        registry.rollback("iris", automatic=False, reason="bad", key="k")
    elif command == "block":
        registry.block("iris", "every row crashes", automatic=True, expected_generation=2)
    elif command == "reconcile":
        registry.reconcile()
    else:
        raise ValueError(command)


def judge(registry: Registry, version: Version) -> None:
    """Record what a gate found, and let the version through, as a deployment does."""
    result = CheckResult(id="test.passes", verdict=Verdict.PASSED, summary="fine")
    decision = GateDecision(
        app="iris", candidate=version.name, allowed=True, results=(result,), because="fine"
    )
    evidence = registry.record_evidence(
        "iris",
        version.digest,
        decision.to_json(),
        policy_digest="policy",
        data_digest="data",
        code_version="code",
    )
    registry.mark(version.id, State.PASSED, reason="gate passed", evidence_id=evidence)


class Points:
    """Counts what is passed, and kills at the one that was asked for."""

    armed = False
    passed: ClassVar[list[str]] = []
    fatal = 0

    @classmethod
    def pass_one(cls, name: str) -> None:
        if not cls.armed:
            return
        cls.passed.append(name)
        if len(cls.passed) == cls.fatal:
            os.kill(os.getpid(), signal.SIGKILL)


def watch(registry: Registry) -> None:
    """Pass a point at everything that could be half done."""
    engine = registry.database.engine

    @event.listens_for(engine, "before_cursor_execute")
    def _statement(_c, _k, statement, *_rest):
        Points.pass_one(" ".join(statement.split()[:3]))

    @event.listens_for(engine, "commit")
    def _commit(_connection):
        Points.pass_one("before COMMIT")

    @event.listens_for(engine, "checkin")
    def _checkin(_connection, _record):
        Points.pass_one("after COMMIT or ROLLBACK")

    sync = os.fsync

    def fsync(descriptor):
        Points.pass_one("before fsync")
        sync(descriptor)
        Points.pass_one("after fsync")

    os.fsync = fsync
    sys.addaudithook(lambda name, _: Points.pass_one(name) if name == "os.rename" else None)


def child(root: Path, command: str, point: int, answer: int) -> None:
    registry = Registry.open(ProjectSettings(root=root), clock=lambda: NOW)
    registry.app("iris")
    watch(registry)
    Points.fatal = point
    Points.armed = command not in ("stage", "promote")
    give(registry, root, command)
    Points.armed = False
    os.write(answer, json.dumps(Points.passed).encode())


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            child(Path(asked["root"]), asked["command"], asked["point"], write)
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as stream:
            said = stream.read()
        _, status = os.waitpid(pid, 0)
        answer = {
            "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
            "status": status,
            "acknowledged": bool(said),
            "points": json.loads(said) if said else [],
        }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
