"""A gate decision as a JUnit file: one case per check and group.

A blocking INCONCLUSIVE is a failure of type ``inconclusive``; any other is skipped with its
reason, as is a bad verdict that only warns: the file is red exactly when the gate is closed.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from mlguard.results import CheckResult, GateDecision, Verdict
from mlguard.waivers import waiver_words
from mlguard.wording import printable


def write_junit(decision: GateDecision, path: Path) -> None:
    """Write a decision as JUnit XML.

    Parameters
    ----------
    decision : GateDecision
        What was decided.
    path : Path
        Where to; its folder is made.
    """
    results = decision.results
    suite = ET.Element(
        "testsuite",
        name=f"mlguard {decision.app}",
        tests=str(len(results)),
        failures=str(sum(one.blocks and one.verdict is not Verdict.ERRORED for one in results)),
        errors=str(sum(one.blocks and one.verdict is Verdict.ERRORED for one in results)),
        skipped=str(sum(_skipped(one) for one in results)),
        time=f"{sum(one.duration_s for one in results):.3f}",
    )
    for one in results:
        suite.append(_case(decision.app, one))
    root = ET.Element("testsuites")
    root.append(suite)
    path.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _skipped(one: CheckResult) -> bool:
    return not one.blocks and one.verdict not in (Verdict.PASSED, Verdict.WARNED)


def _case(app: str, one: CheckResult) -> ET.Element:
    case = ET.Element(
        "testcase",
        classname=f"{app}.{one.family}",
        name=printable(one.name.removeprefix(f"{one.family}.")),
        time=f"{one.duration_s:.3f}",
    )
    facts = {
        "verdict": one.verdict.value,
        "enforcement": one.enforcement.value,
        "value": one.value,
        "limit": one.limit,
        "low": one.interval[0] if one.interval else None,
        "high": one.interval[1] if one.interval else None,
        "n": one.n,
        "n_min": one.n_min,
        "reason": one.reason or None,
        "waived_by": one.waived_by,
        "waiver": waiver_words(one) or None,
    }
    properties = ET.SubElement(case, "properties")
    for key, value in facts.items():
        if value is not None:
            ET.SubElement(properties, "property", name=f"mlguard.{key}", value=str(value))
    text = printable(one.summary, 2000)
    if one.blocks:
        errored = one.verdict is Verdict.ERRORED
        bad = ET.SubElement(
            case, "error" if errored else "failure", message=text, type=one.verdict.value
        )
        body = [text, one.next_step and f"next: {one.next_step}", one.details.get("traceback", "")]
        bad.text = printable("\n".join(part for part in body if part), 8000, lines=True)
    elif _skipped(one):
        ET.SubElement(case, "skipped", message=text, type=one.verdict.value)
    else:
        ET.SubElement(case, "system-out").text = text
    return case
