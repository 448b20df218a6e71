"""A version's card as Markdown and as one self-contained page: pure functions of the card."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mlguard.reports.card import Card, Cell, Lineage
from mlguard.reports.markup import (
    md,
    md_figures,
    md_table,
    page,
    printable_values,
)
from mlguard.wording import NONE, SMALL_GROUP, count, duration, estimate, moment, number


def html(card: Card, *, home: str = "") -> str:
    """Render a card as one HTML page that loads nothing.

    Parameters
    ----------
    card : Card
    home : str
        Where the app's own page is, for a card that a server shows; empty: nowhere.
    """
    card = _printable(card)
    shown = {"facts": facts(card), "lineage": lineage(card), "small": _FEW, "home": home}
    return page("card.html.j2", card=card, **shown)


def markdown(card: Card) -> str:
    """Render a card as Markdown; what comes from outside cannot become markup."""
    card = _printable(card)
    blocks = [
        f"# {md(card.app)} {md(card.version)}",
        md(card.description),
        _pairs(facts(card)),
        "## Inputs and answers",
        *_md_inputs(card),
        *_md_judged(card),
    ]
    if card.waived:
        lines = [
            f"- {md(one.name)}: {md(one.says)}. {md(one.reason)}"
            + (f" ({md(one.ticket)})" if one.ticket else "")
            for one in card.waived
        ]
        blocks += ["## Waived", "\n".join(lines)]
    blocks += ["## What it was not tested on", _list(card.limits)]
    blocks += ["## Where it comes from", _pairs(lineage(card))]
    if card.data:
        blocks.append(_pairs(list(card.data.items())))
    if card.happenings:
        lines = [
            f"- {moment(one.at)} {md(one.what)}"
            + (f": {md(one.why)}" if one.why else "")
            + (f" (by {md(one.who)})" if one.who else "")
            for one in card.happenings
        ]
        blocks += ["## History", "\n".join(lines)]
    where = f"{md(card.project)}, {md(card.environment)}"
    blocks.append(f"Made by mlguard on {moment(card.at)} in {where}.")
    return "\n\n".join(blocks) + "\n"


_FEW = f"not shown, fewer than {SMALL_GROUP} rows"


def facts(card: Card) -> list[tuple[str, str]]:
    """Return what a reader asks first, as pairs of what and text."""
    registered = f"{moment(card.registered_at)} by {card.registered_by}"
    found: list[tuple[str, str]] = [
        ("State", f"{card.state.lower()} since {moment(card.since)}"),
        ("Quarantine", card.quarantine),
        ("Owner", card.owner),
        ("Decides", card.decision),
        ("Success is", card.success_metric),
        ("Task", f"{card.task}, input {card.input}"),
        ("Registered", registered + (f": {card.message}" if card.message else "")),
        ("Promoted", moment(card.activated_at) if card.activated_at is not None else ""),
        ("Confirmed", _confirmed(card)),
    ]
    return [(what, text) for what, text in found if text]


def _confirmed(card: Card) -> str:
    if card.confirmed_at is None:
        return ""
    watched = f", watched for {duration(card.baked_s)}" if card.baked_s else ""
    return f"{moment(card.confirmed_at)}{watched}"


def lineage(card: Card) -> list[tuple[str, str]]:
    """Return what the version can be traced to, as pairs; nothing that is not recorded."""
    known = card.lineage
    found = [
        ("Version digest", known.version_digest),
        ("Model file", f"{known.model_digest} ({known.model_format})"),
        ("Data digest", known.data_digest),
        ("Policy digest", known.policy_digest),
        ("Judged by mlguard", known.code_version),
        ("Git commit", known.commit),
        ("Python", f"{known.python} on {known.platform}" if known.python else ""),
        ("Libraries", _libraries(known)),
        ("Environment digest", known.environment_digest),
    ]
    return [(what, text) for what, text in found if text]


def _libraries(known: Lineage) -> str:
    if not known.libraries:
        return ""
    named = ", ".join(f"{name} {version}" for name, version in known.libraries.items())
    others = known.n_libraries - len(known.libraries)
    return f"{named} and {others} more, listed in the evidence" if others > 0 else named


def _printable(card: Card) -> Card:
    return msgspec.convert(printable_values(msgspec.json.decode(msgspec.json.encode(card))), Card)


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- **{md(what)}**: {md(text)}" for what, text in pairs)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {md(one)}" for one in lines)


def _md_inputs(card: Card) -> list[str]:
    rows = [(md(one.name), md(one.kind), md(one.seen) or NONE) for one in card.inputs]
    blocks = [md_table(("input", "kind", "values seen"), rows)] if rows else []
    answers: list[tuple[str, str]] = []
    if card.classes is not None:
        answers.append(("Answers", ", ".join(card.classes)))
    answers += [(f"Threshold, {whom}", number(value)) for whom, value in card.thresholds.items()]
    return [*blocks, _pairs(answers)] if answers else blocks


def _md_judged(card: Card) -> list[str]:
    judged = card.judged
    if judged is None:
        return []
    word = "lets it through" if judged.allowed else "does not let it through"
    said = f"The gate {word}: {md(judged.because)} (judged {moment(judged.at)} by {md(judged.by)})."
    blocks = ["## What the gate found", said]
    if judged.approved_by:
        blocks.append(f"Approved by {md(judged.approved_by)}: {md(judged.approved_because)}")
    blocks += md_figures("", [one.line for one in judged.checks])[1:]
    for one in judged.checks:
        if not one.cells:
            continue
        rows = [
            (md(cell.group) or "everybody", md(cell.name), _md_value(cell), count(cell.n))
            for cell in one.cells
        ]
        blocks.append(f"### {md(one.figure.name)}, what is behind it")
        blocks.append(md_table(("of", "what", "value", "n"), rows))
    return blocks


def _md_value(cell: Cell) -> str:
    if cell.suppressed:
        return _FEW
    return md(estimate(cell.value, (cell.low, cell.high), unit=cell.unit))
