"""Personal data in columns, by what values look like: names, mails, phones, cards, ids.

A detector looks at one text and at what its column is called.  Those with a check digit (cards,
IBAN, most national ids) or an unmistakable form (mails) believe a value by itself; names and
bare digits are believed only where many values of the column agree, or where the column says
what it holds.  Counts come out, never values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from mlguard.wording import SMALL_GROUP, count, share

Kind = Literal["mail", "phone", "card", "iban", "national_id", "name"]

#: What each kind is called in a sentence.
WORDS: dict[Kind, str] = {
    "mail": "mail addresses",
    "phone": "phone numbers",
    "card": "card numbers",
    "iban": "bank accounts",
    "national_id": "national ids",
    "name": "names of people",
}
#: Share of a column's values that must look like it, where the column's name says nothing and
#: where it does.
_ENOUGH: dict[Kind, tuple[float, float]] = {
    "mail": (0.0, 0.0),
    "iban": (0.0, 0.0),
    "national_id": (0.2, 0.02),
    "card": (0.2, 0.02),
    "phone": (0.2, 0.2),
    "name": (0.2, 0.02),
}
_HINTS: dict[Kind, re.Pattern[str]] = {
    "mail": re.compile(r"e?-?mail", re.IGNORECASE),
    "phone": re.compile(r"phone|mobile|telefon|(^|_)(tel|fax|cell)(_|$)", re.IGNORECASE),
    "card": re.compile(r"card|(^|_)(pan|cc)(_|$)", re.IGNORECASE),
    "iban": re.compile(r"iban|account", re.IGNORECASE),
    "national_id": re.compile(
        r"ssn|social|passport|national|(^|_)(nin|nir|dni|nino)", re.IGNORECASE
    ),
    "name": re.compile(
        r"(^|_|\b)(first|last|full|sur|given|family|maiden|middle|user|patient|passenger|customer|"
        r"person|contact|owner)?[_ ]?name$|^(first|last|given|family)$",
        re.IGNORECASE,
    ),
}
#: Columns whose values may be given names and are places.
_PLACES = re.compile(r"city|town|country|county|state|street|address|place", re.IGNORECASE)
_MAIL = re.compile(r"[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}")
_PHONE = re.compile(r"(?:\+\d{1,3}[\s./-]?|00\d{2}[\s./-]?)(?:\(?\d{1,5}\)?[\s./-]?){2,5}")
_NORTH_AMERICAN = re.compile(r"(?:1[-. ])?(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}")
_DIGITS = re.compile(r"[\d\s./()+-]{7,22}")
_CARD = re.compile(r"(?<![\d-])(?:\d[ -]?){12,18}\d(?![\d-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b")
_SSN = re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
_NINO = re.compile(
    r"\b(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?(?:\d{2} ?){3}[A-D]\b"
)
_DNI = re.compile(r"\b(\d{8})-?([A-HJ-NP-TV-Z])\b")
_NIR = re.compile(r"(?<!\d)([12] ?\d{2} ?(?:0[1-9]|1[0-2]) ?\d{2} ?\d{3} ?\d{3}) ?(\d{2})(?!\d)")
_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_TITLE = re.compile(r"\b(?:Mr|Mrs|Ms|Miss|Master|Dr|Prof|Rev|Herr|Frau|Mme|Monsieur)\b\.?")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
#: Lengths of card numbers and the digits that issuers begin them with.
_ISSUERS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|6\d{15,18}|3[0689]\d{12}"
)
#: Given names that are frequent somewhere; enough of them to recognise a column of names.
_GIVEN_NAMES = """
james john robert michael william david richard joseph thomas charles christopher daniel matthew
anthony mark donald steven paul andrew joshua kenneth kevin brian george edward ronald timothy
jason jeffrey ryan jacob gary nicholas eric jonathan stephen larry justin scott brandon benjamin
samuel gregory frank alexander raymond patrick jack dennis jerry tyler aaron henry mary patricia
jennifer linda elizabeth barbara susan jessica sarah karen lisa nancy betty margaret sandra
ashley kimberly emily donna michelle carol amanda dorothy melissa deborah stephanie rebecca
sharon laura cynthia kathleen amy angela shirley anna brenda pamela emma nicole helen samantha
katherine christine debra rachel carolyn janet catherine maria heather diane ruth julie olivia
joyce virginia peter hans klaus juergen jürgen wolfgang andreas stefan martin uwe bernd ursula
monika petra sabine renate helga karin brigitte ingrid pierre jean michel andré philippe alain
jacques nathalie isabelle sylvie françoise jose josé antonio juan manuel francisco luis javier
carlos miguel ana carmen josefa isabel giuseppe giovanni luigi mario francesca giulia ahmed
mohamed mohammed muhammad ali fatima omar hassan aisha wei li ming hiroshi kenji yuki priya
rahul amit sanjay ivan olga dmitri sergei natasha
"""
_GIVEN = frozenset(_GIVEN_NAMES.split())


@dataclass(frozen=True, slots=True)
class PersonalData:
    """What a column seems to hold.

    Attributes
    ----------
    kind : Kind
        Of what.
    found, n : int
        Values that look like it, of how many that were looked at.
    """

    kind: Kind
    found: int
    n: int

    @property
    def words(self) -> str:
        """What it is called in a sentence."""
        return WORDS[self.kind]

    @property
    def told(self) -> str:
        """What was found, and how much of it; a few values are not counted."""
        if self.found < SMALL_GROUP:
            return f"{self.words}: fewer than {SMALL_GROUP} values"
        return f"{self.words}: {share(self.found / self.n)} of {count(self.n)} values"


def find_personal_data(name: str, values: Iterable[str]) -> PersonalData | None:
    """Return what personal data a column seems to hold; None where it seems to hold none.

    Parameters
    ----------
    name : str
        What the column is called.
    values : iterable of str
        Its values, without the missing ones; a sample of a few thousand is enough.

    Examples
    --------
    >>> find_personal_data("contact", ["ann@example.com", "none"]).words
    'mail addresses'
    >>> find_personal_data("city", ["Ulm", "Bonn"]) is None
    True
    """
    texts = list(values)
    if not texts:
        return None
    for kind, looks_like in _DETECTORS.items():
        if kind == "name" and _PLACES.search(name):
            continue
        hinted = _HINTS[kind].search(name) is not None
        found = sum(looks_like(text, hinted) for text in texts)
        if found and found / len(texts) >= _ENOUGH[kind][hinted]:
            return PersonalData(kind, found, len(texts))
    return None


def luhn(digits: str) -> bool:
    """Return whether a number has a valid check digit by Luhn's rule.

    Parameters
    ----------
    digits : str
        Digits only.

    Examples
    --------
    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    total = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        doubled = 2 * digit if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled  # the digit sum
    return total % 10 == 0


def _mail(text: str, _hinted: bool) -> bool:  # noqa: FBT001  all detectors have this shape
    return "@" in text and _MAIL.search(text) is not None


def _iban(text: str, _hinted: bool) -> bool:  # noqa: FBT001  called through a table, by position
    for found in _IBAN.finditer(text):
        plain = found[0].replace(" ", "")
        if int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1:
            return True
    return False


def _card(text: str, _hinted: bool) -> bool:  # noqa: FBT001  called through a table, by position
    for found in _CARD.finditer(text):
        digits = re.sub(r"\D", "", found[0])
        if _ISSUERS.fullmatch(digits) and luhn(digits):
            return True
    return False


def _national_id(text: str, _hinted: bool) -> bool:  # noqa: FBT001  called through a table, by position
    if _SSN.search(text) or _NINO.search(text):
        return True
    if any(_DNI_LETTERS[int(one[1]) % 23] == one[2] for one in _DNI.finditer(text)):
        return True
    return any(97 - int(one[1].replace(" ", "")) % 97 == int(one[2]) for one in _NIR.finditer(text))


def _phone(text: str, hinted: bool) -> bool:  # noqa: FBT001  called through a table, by position
    text = text.strip()
    if _PHONE.fullmatch(text) or _NORTH_AMERICAN.fullmatch(text):
        return True
    return hinted and _DIGITS.fullmatch(text) is not None and sum(map(str.isdigit, text)) >= 7


def _name(text: str, hinted: bool) -> bool:  # noqa: FBT001  called through a table, by position
    words = _WORD.findall(text)
    if len(words) > 8:
        return False
    titled = len(words) > 1 and _TITLE.search(text) is not None
    given = any(word.lower() in _GIVEN for word in words)
    return titled or (given and (hinted or len(words) > 1))


#: The surest first: one that is believed ends the search.
_DETECTORS: dict[Kind, Callable[[str, bool], bool]] = {
    "mail": _mail,
    "iban": _iban,
    "national_id": _national_id,
    "card": _card,
    "phone": _phone,
    "name": _name,
}
