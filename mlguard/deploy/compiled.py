"""What compiling a candidate found, as a result of its gate.

The comparison was made when the candidate was described, in the process that could open it.
Here it becomes evidence: the numbers, and whether they close the gate.  They do only where
app.toml asks for ONNX and nothing else.
"""

from __future__ import annotations

from mlguard import policy
from mlguard.models.bundle import Manifest
from mlguard.models.compilation import GRAPH, Compilation
from mlguard.results import CheckResult, Enforcement, GateDecision, Verdict

#: Identity of the result.
CHECK = "serving.compilation"


def compilation_result(found: Compilation) -> CheckResult:
    """Return what compiling found as the result of a check."""
    refused = found.asked == "onnx" and found.runtime != "onnx" and found.reason != GRAPH
    compared = found.comparison
    return CheckResult(
        id=CHECK,
        verdict=Verdict.FAILED if refused else Verdict.PASSED,
        summary=found.summary() if not refused else f"not served as ONNX: {found.reason}",
        value=None if compared is None else compared.largest,
        limit=found.tolerance,
        n=None if compared is None else compared.n_rows,
        reason="not_compiled" if refused else "",
        next_step='set [model] runtime = "auto" to serve the original where ONNX differs'
        if refused
        else "",
        enforcement=Enforcement.BLOCK if found.asked == "onnx" else Enforcement.WARN,
        details=found.to_json(),
    )


def with_compilation(decision: GateDecision, manifest: Manifest) -> GateDecision:
    """Return a gate's decision with what compiling found about the same candidate."""
    if not manifest.compilation or not decision.results:
        return decision
    result = compilation_result(Compilation.from_json(manifest.compilation))
    return policy.gate_decision(
        decision.app, decision.candidate, [*decision.results, result], decision.not_applicable
    )


def on_compilation(decision: GateDecision) -> CheckResult | None:
    """Return what compiling found, None for evidence from before there was such a thing."""
    return next((one for one in decision.results if one.id == CHECK), None)
