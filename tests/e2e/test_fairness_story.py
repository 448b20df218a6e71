"""The credit example, as its team lives with it: refusal, waiver, thresholds, alarm."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pandas as pd
import pytest

from mlguard.project import Project

pytestmark = [pytest.mark.soak, pytest.mark.marathon]

ROOT = Path(__file__).parents[2]
KEY = "a-key-of-the-branch-office"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The example project with credit alone, served to callers with a key, watched at once."""
    folder = tmp_path_factory.mktemp("story") / "project"
    made = shutil.ignore_patterns("data", "*.skops", ".mlguard", "__pycache__")
    for name in ("serving/credit", "checks/credit"):
        shutil.copytree(ROOT / name, folder / name, ignore=made)
    shutil.copyfile(ROOT / "mlguard.toml", folder / "mlguard.toml")
    toml = folder / "serving/credit/app.toml"
    text = toml.read_text().replace(
        "[app]\n", '[app]\nkeys = ["branch"]\ngroups_affect_decisions = true\n', 1
    )
    toml.write_text(text + '\n[auto]\ngrace = "0s"\n[rollout]\nbake = "1s"\n')
    return folder


def mlguard(folder, *words):
    """Type a command; return its exit code and its JSON document."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mlguard.cli", *map(str, words), "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def waive(folder, check, subject):
    """Let the lending team answer for a finding; return whether that was done."""
    words = ["waive", "credit", check, "--subject", subject, "--any-version"]
    words += ["--owner", "lending", "--reason", "pilot in one branch", "--expires", "14d"]
    return mlguard(folder, *words)[0] == 0


def test_a_team_lives_with_its_groups(project, running, wait_until, monkeypatch):
    """Each thing the library promises about groups happens on the example's own data."""
    monkeypatch.setenv("MLGUARD_KEY_BRANCH", KEY)
    code, first = mlguard(project, "deploy", "credit")
    assert (code, first["active"]["state"]) == (0, "LIVE")

    # A refusal: who, by how much, and what the limit was.
    naive = project / "serving/credit/naive.skops"
    code, refused = mlguard(project, "deploy", "credit", "--model", naive)
    assert code == 1
    failed = [one for one in refused["checks"] if one["verdict"] == "failed"]
    assert any("false_negative_rate" in one["id"] and one["n"] for one in failed)

    # A waiver: somebody answers for each finding until a date; then it may go live.
    assert all(waive(project, one["id"], one["subject"]) for one in failed)
    code, waived = mlguard(project, "deploy", "credit", "--model", naive)
    assert code == 0
    assert {one["waived_by"] for one in waived["checks"] if one["verdict"] == "failed"} == {
        "lending"
    }
    assert mlguard(project, "rollback", "credit", "--reason", "the pilot is over")[0] == 0

    # Thresholds of a policy, written into app.toml, judged by the gate and served per group.
    code, _ = mlguard(
        project,
        "fairness",
        "credit",
        "--by",
        "race",
        "--thresholds",
        "--write",
        "equal_opportunity",
    )
    assert code == 0
    thresholds = Project(project).app("credit").model.thresholds
    assert {"race=A", "race=B", "race=C"} <= set(thresholds)
    # What is best by the app's utility is right less often: that too somebody must answer for.
    code, policy = mlguard(project, "deploy", "credit")
    assert code == 1
    assert [one["id"] for one in policy["checks"] if one["verdict"] == "failed"] == [
        "baseline.no_worse_than"
    ]
    assert waive(project, "baseline.no_worse_than", "live")
    code, policy = mlguard(project, "deploy", "credit")
    assert code == 0, policy
    assert policy["to"] != "v1"

    rows = pd.read_csv(project / "serving/credit/data/test.csv")
    with running("serve", "--port", "0", folder=project) as (_, url, _out):
        features = rows.columns.difference(["applicant", "applied_at", "repaid", "sex", "race"])
        row = json.loads(rows.loc[0, features].to_json())
        assert httpx.post(f"{url}/credit/predict", json={"input": row}).status_code == 401
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}) as client:
            asked = {"input": row, "groups": {"race": "C"}}
            assert client.post("/credit/predict", json=asked).json()["default"] is False

            # A production alarm: from now on most of group C is judged wrongly.
            for _, one in rows.sample(1500, random_state=1).iterrows():
                wrong = one["race"] == "C" and one.name % 4 > 0
                asked = {
                    "input": json.loads(one[features].to_json()),
                    "groups": {"race": one["race"], "sex": one["sex"]},
                }
                answer = client.post("/credit/predict", json=asked).json()
                truth = 1 - int(answer["output"]) if wrong else int(one["repaid"])
                label = {"query_id": answer["query_id"], "label": truth}
                assert client.post("/credit/update", json=label).status_code == 200

        def alarmed():
            incidents = Project(project).registry.incidents("credit")
            return [one for one in incidents if one.monitor.startswith("fairness")]

        [incident, *_] = wait_until(alarmed, "the fairness monitor to open an incident")
    assert "race" in json.dumps(incident.facts) + incident.summary
