"""``mlguard.toml`` and ``serving/<app>/app.toml`` as typed settings.

An empty ``mlguard.toml`` is valid: every key has a default.  An unknown key, a wrong type or
an impossible value is a :class:`~mlguard.errors.ConfigError` that names the file, the table,
the key, the value, what is allowed and the nearest known name.

Units: every duration is held in seconds and written as ``"90s"``, ``"10m"``, ``"24h"`` or
``"7d"``; a ratio lies in [0, 1]; a name ending in ``_ms`` or ``_mib`` carries its unit.
"""

from __future__ import annotations

import difflib
import importlib.util
import itertools
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from mlguard.errors import ConfigError, NotFoundError
from mlguard.results import Enforcement

APP_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
#: Routes of the server that an app's name would hide.
RESERVED_NAMES = frozenset(
    {"api", "apps", "docs", "healthz", "metrics", "openapi.json", "readyz", "v2"}
)

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: object) -> float:
    """Return the seconds that ``"90s"``, ``"10m"``, ``"24h"`` or ``"7d"`` stands for.

    Raises
    ------
    ValueError
        If the text is not a number followed by one of s, m, h, d.
    """
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError('a duration is written like "90s", "10m", "24h" or "7d"')
    return float(found[1]) * _SECONDS[found[2]]


def _duration_or_seconds(value: object) -> object:
    # Defaults are written in seconds; what people write carries its unit.
    return parse_duration(value) if isinstance(value, str) else value


Duration = Annotated[
    float, BeforeValidator(_duration_or_seconds), Field(json_schema_extra={"unit": "duration"})
]
Ratio = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]
KeyName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
OneOrMany = Annotated[
    list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]


class Table(BaseModel):
    """A TOML table: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


AnyTable = TypeVar("AnyTable", bound=Table)


# --- mlguard.toml ------------------------------------------------------------------------

_CLOCK = r"([01]\d|2[0-3]):([0-5]\d)"
_DAILY = re.compile(rf"{_CLOCK} (\S+)")
_SPAN = re.compile(rf"{_CLOCK} (?:to|-) {_CLOCK} (\S+)")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"{name!r} is no time zone; write UTC or a name like Europe/Paris"
        ) from error


def parse_daily(text: str) -> tuple[int, ZoneInfo]:
    """Return a time of day in minutes after midnight, and its zone.

    Raises
    ------
    ValueError
        If ``text`` is not of the form ``"08:00 UTC"``.

    Examples
    --------
    >>> parse_daily("08:30 UTC")[0]
    510
    """
    found = _DAILY.fullmatch(text)
    if found is None:
        raise ValueError(f'{text!r} is no time of day with a zone; write it like "08:00 UTC"')
    return int(found[1]) * 60 + int(found[2]), _zone(found[3])


def parse_span(text: str) -> tuple[int, int, ZoneInfo]:
    """Return the start and end of some hours of the day in minutes after midnight, and the zone.

    Raises
    ------
    ValueError
        If ``text`` is not of the form ``"22:00 to 07:00 UTC"``, or the hours are none or all.

    Examples
    --------
    >>> parse_span("22:00 to 07:00 UTC")[:2]
    (1320, 420)
    """
    found = _SPAN.fullmatch(text)
    if found is None or found.group(1, 2) == found.group(3, 4):
        raise ValueError(f'{text!r} are no hours of the day; write them like "22:00 to 07:00 UTC"')
    start, end = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
    return start, end, _zone(found[5])


def _checked_daily(text: str) -> str:
    parse_daily(text)
    return text


def _checked_span(text: str) -> str:
    if text:
        parse_span(text)
    return text


class ProjectTable(Table):
    """``[project]``."""

    name: str = Field("mlguard", description="How people call the project; stands in every mail.")
    environment: str = Field("prod", description="Which installation this is, e.g. prod or dev.")


class RegistryTable(Table):
    """``[registry]``."""

    url: str = Field(
        "sqlite:///.mlguard/registry.db",
        description="SQLAlchemy URL of the registry; a relative SQLite path starts at the root.",
    )
    artifacts: str = Field(
        ".mlguard/artifacts",
        description="Folder that holds the versions' bytes, or a URL that fsspec knows, such as "
        "`s3://bucket/prefix` (`pip install mlguard[s3]`).",
    )


class ServerTable(Table):
    """``[server]``."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(1337, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    processes: int = Field(1, ge=1, le=256, description="Front-end processes.")
    admin_token_env: str = Field(
        "MLGUARD_ADMIN_TOKEN", description="Environment variable that holds the admin token."
    )
    min_free_mib: float = Field(
        256,
        ge=0,
        description="Free space on the disk of the prediction log, in MiB, below which predictions "
        "are not logged any more (they are counted). 0: logged until the disk is full.",
    )
    max_body_mib: float = Field(8, gt=0, description="Largest request body, in MiB.")
    max_header_bytes: int = Field(
        32_768, ge=1024, description="Largest request line and headers together, in bytes."
    )
    max_connections: int = Field(
        10_000, ge=1, description="Connections that one front-end process keeps open."
    )
    request_timeout_s: float = Field(
        30, gt=0, description="Longest that a request may take to arrive, or its answer to be read."
    )
    rate_limit_per_s: float = Field(
        0,
        ge=0,
        description="Predict, update and infer requests a second that one caller (its key, else "
        "its address) may send to one front-end process; a second's worth may come at once. "
        "0: any number.",
    )
    hosts: OneOrMany = Field(
        default_factory=list,
        description="Names that a request's Host header may have, without port; empty: any.",
    )
    tls_cert: str = Field(
        "", description="File with the server's certificate chain (PEM); empty: plain HTTP."
    )
    tls_key: str = Field("", description="File with the certificate's private key (PEM).")
    access_log: str = Field(
        "",
        description="File that gets a line of JSON for each request; `-` is standard error, "
        "empty: none is written.",
    )

    @model_validator(mode="after")
    def _both_tls_files(self) -> Self:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key belong together: name both files or none")
        return self


class EmailTable(Table):
    """``[notify.email]``; absent: mail is written to ``.mlguard/outbox/*.eml``."""

    smtp: str = Field("smtp://localhost:25", description="smtp://host:port or smtps://host:port.")
    sender: str = Field(
        "mlguard@localhost", alias="from", description="Address that the mail comes from."
    )
    to: OneOrMany = Field(default_factory=list, description="Addresses that get the mail.")
    username: str = Field("", description="SMTP user; empty: no authentication.")
    password_env: str = Field("", description="Environment variable with the SMTP password.")
    insecure: bool = Field(False, description="Allow a connection without STARTTLS.")
    timeout_s: float = Field(20, gt=0, description="Seconds to wait for the mail server.")


class WebhookTable(Table):
    """``[notify.webhook]``: every event as a JSON document, posted to one address."""

    url: str = Field(
        pattern=r"^https?://[^\s/]+", description="Where each event is posted to, as JSON."
    )
    secret_env: str = Field(
        "",
        description="Environment variable with a secret; with it each request is signed in the "
        "header `X-MLGuard-Signature`. Empty: no signature.",
    )
    timeout_s: float = Field(20, gt=0, description="Seconds to wait for the answer.")


class NotifyProjectTable(Table):
    """``[notify]``: when people are told. How is told in the tables below it."""

    group_wait: Duration = Field(
        30.0,
        ge=0,
        description="How long the first message of an incident waits for what belongs to it.",
    )
    group_interval: Duration = Field(
        300.0, ge=0, description="Least time between two messages of one incident."
    )
    repeat: Duration = Field(
        4 * 3600.0,
        ge=60,
        description="An incident that is still open after so long without news is reminded of; "
        "after that daily.",
    )
    digest: Annotated[str, AfterValidator(_checked_daily)] = Field(
        "08:00 UTC",
        description='When the daily digest goes out: a time and a zone, e.g. "08:00 Europe/Paris".',
    )
    quiet: Annotated[str, AfterValidator(_checked_span)] = Field(
        "",
        description='Hours in which only a rollback or the default output is told, e.g. "22:00 to '
        '07:00 Europe/Paris"; what else happens is told when they end. Empty: none.',
    )
    cap_per_day: int = Field(
        20,
        ge=1,
        description="Most messages to one address from one digest to the next; what is more "
        "stands in the digest. A rollback and the default output are told above it.",
    )
    give_up: Duration = Field(
        72 * 3600.0, ge=60, description="What could not be sent for so long is given up."
    )
    also: OneOrMany = Field(
        default_factory=list,
        description="Recipients that a notifier from elsewhere reaches, in its own words.",
    )
    authors: dict[str, str] = Field(
        default_factory=dict,
        description="Addresses of people by the name they work under: a refusal is told to whoever "
        "registered the version, if named here, and else to all.",
    )
    email: EmailTable | None = Field(None, description="Where mail goes.")
    webhook: WebhookTable | None = Field(None, description="Where events are posted to.")


class ProjectSettings(Table):
    """The whole of ``mlguard.toml``, and the folder it was found in."""

    project: ProjectTable = ProjectTable()
    registry: RegistryTable = RegistryTable()
    server: ServerTable = ServerTable()
    notify: NotifyProjectTable = NotifyProjectTable()
    root: Path = Field(Path(), exclude=True)

    @property
    def state_dir(self) -> Path:
        """``.mlguard``: everything that mlguard writes for itself."""
        return self.root / ".mlguard"

    def make_state_dir(self) -> Path:
        """Make ``.mlguard``, hidden from git: what it holds belongs to this machine."""
        ignore = self.state_dir / ".gitignore"
        if not ignore.exists():
            self.state_dir.mkdir(parents=True, exist_ok=True)
            ignore.write_text("*\n", encoding="utf-8")
        return self.state_dir

    @property
    def tls_files(self) -> tuple[Path, Path] | None:
        """Certificate chain and private key; None for plain HTTP."""
        if not self.server.tls_cert:
            return None
        return self.root / self.server.tls_cert, self.root / self.server.tls_key

    @property
    def access_log(self) -> Path | str | None:
        """File of the access log, ``"-"`` for standard error, None for none."""
        target = self.server.access_log
        return (target if target == "-" else self.root / target) if target else None

    @property
    def log_dir(self) -> Path:
        """Folder of the prediction log and its labels."""
        return self.state_dir / "log"

    @property
    def registry_url(self) -> str:
        """The registry's URL with a relative SQLite path made absolute."""
        prefix = "sqlite:///"
        url = self.registry.url
        if url.startswith(prefix) and not url.startswith(prefix + "/"):
            return f"{prefix}{(self.root / url.removeprefix(prefix)).resolve()}"
        return url

    @property
    def artifacts_url(self) -> str:
        """The artifact store's URL with a relative path made absolute."""
        url = self.registry.artifacts
        return url if "://" in url else str((self.root / url).resolve())

    def app_names(self) -> list[str]:
        """Names of the apps declared under ``serving/``, sorted."""
        return sorted(path.parent.name for path in (self.root / "serving").glob("*/app.toml"))


# --- app.toml: the app, its data, its model ----------------------------------------------

InputType = Literal["doubles", "floats", "ints", "strings", "bytes", "table"]


class AppTable(Table):
    """``[app]``: the decision this model makes, and for whom."""

    description: Text = Field(description="What the app predicts, in a sentence.")
    owner: Text = Field(description="Who answers for it: a person or a team, with an address.")
    decision: Text = Field(description="What is decided with a prediction.")
    success_metric: Text = Field(description="What gets better in the world if it works.")
    task: Literal["classification", "regression"] = Field(
        "classification", description="What kind of prediction it is."
    )
    input: InputType = Field("doubles", description="Type of one input row, as in Clipper.")
    strict_types: bool = Field(False, description="Numbers as strict as Clipper's own.")
    slo_ms: float = Field(100, gt=0, description="Time after which the default is answered.")
    default_output: str = Field("None", description="Answer where no model can answer.")
    max_wait_ms: float = Field(0, ge=0, description="How long a batch may wait to fill.")
    cache_mib: float = Field(
        0,
        ge=0,
        description="Memory for the answers to rows that were asked before, per version and "
        "front end, in MiB; 0: none are kept.",
    )
    keys: list[KeyName] = Field(
        default_factory=list,
        description="Names of the keys of which a caller shows one to predict and to send labels; "
        "a key is in `MLGUARD_KEY_<NAME>`, or in the file that `MLGUARD_KEY_<NAME>_FILE` names. "
        "Empty: anybody may ask.",
    )
    uncertainty: bool = Field(
        False,
        description="Whether answers carry a set of classes, or an interval of values, that "
        "holds the truth as often as `coverage` says.",
    )
    coverage: float = Field(
        0.9, gt=0.5, lt=1, description="How often the truth is in the set or interval."
    )
    unusual_rows: Literal["pass", "flag", "default"] = Field(
        "pass",
        description="What is done with a row that holds a value outside the range of the "
        "version's reference data, a category that was not in it, or nothing where it never "
        "lacked anything: `pass` answers it like any other and does not look, `flag` answers it "
        "and says in the answer what is unusual, `default` answers the default output.",
    )
    groups_affect_decisions: bool = Field(
        False,
        description="Whether a request's group chooses the threshold that its answer is taken "
        "with. The model itself never sees it.",
    )


class DataTable(Table):
    """``[data]``: files of labelled rows, and what their columns mean."""

    train: str = Field("", description="CSV or Parquet file, or fsspec URL, to train on.")
    test: Text = Field(description="CSV or Parquet file, or fsspec URL, to judge on.")
    dev: str = Field(
        "",
        description="Rows like the training rows that the model was not fitted on; with them "
        "variance and a change of the data can be told apart.",
    )
    calibration: str = Field(
        "",
        description="Rows that the uncertainty of answers is measured on. Default: half of the "
        "test rows; its coverage is then judged on the other half.",
    )
    target: Text = Field("y", description="Column to predict.")
    sensitive: OneOrMany = Field(
        default_factory=list, description="Columns that name the groups that are compared."
    )
    time: str = Field("", description="Column with each row's time.")
    id: str = Field("", description="Column that identifies a row.")
    missing_values: list[str] = Field(
        default_factory=list, description="Tokens that mean missing, beside empty cells."
    )
    features: list[str] = Field(
        default_factory=list,
        description="Columns the model sees, in order. Default: the model's own names, "
        "else all but target, sensitive, time and id.",
    )


class ModelTable(Table):
    """``[model]``: the candidate's file and how far it is trusted."""

    path: str = Field(
        "model.skops",
        description="File of the candidate: skops, ONNX, or joblib and pickle; or a class of "
        'yours with a method predict, as "predictor.py:Class".',
    )
    files: list[str] = Field(
        default_factory=list,
        description="Files that the class of `path` needs, in or below the folder of its source.",
    )
    train: str = Field("", description="Script that writes data and model where they are missing.")
    trusted_types: list[str] = Field(
        default_factory=list, description="Types that a skops file may name beside the known ones."
    )
    allow_pickle: bool = Field(False, description="Allow joblib and pickle files, which run code.")
    allow_code: bool = Field(False, description="Allow a Python class as the model, which is code.")
    runtime: Literal["auto", "original", "onnx"] = Field(
        "auto",
        description="What serves: a compiled model where it answers all test rows as the "
        "original does, else the original; the original; or an ONNX graph, and nothing where "
        "its answers differ.",
    )
    compile_tolerance: float = Field(
        1e-4,
        gt=0,
        le=0.1,
        description="Largest difference of a score that a compiled model may have; for a "
        "regression, in standard deviations of its answers.",
    )
    thresholds: dict[str, Ratio] = Field(
        default_factory=lambda: {"default": 0.5},
        description='Score from which the positive class is answered: "default", and where '
        '`groups_affect_decisions` is true, groups of one attribute as "sex=F".',
    )
    replicas: int = Field(1, ge=1, le=256, description="Processes that the model runs in.")
    memory_mib: int = Field(2048, ge=64, description="Memory limit of a model's process.")
    wall_limit_s: float = Field(30, gt=0, description="Longest that one batch may take.")
    cpu_limit_s: float = Field(
        60,
        ge=0.1,
        le=86_400,
        description="Most processor time of a model's process for one batch, all its threads "
        "together, and what they go on with afterwards.",
    )
    heartbeat_s: float = Field(
        10,
        ge=0.1,
        le=3600,
        description="A model's process that has nothing to do and gives no sign of life for so "
        "long is replaced.",
    )

    @property
    def threshold_attribute(self) -> str:
        """The attribute that the thresholds tell apart; empty where one holds for all."""
        return next((key.partition("=")[0] for key in self.thresholds if key != "default"), "")

    @model_validator(mode="after")
    def _readable_thresholds(self) -> Self:
        if "default" not in self.thresholds:
            raise ValueError('thresholds needs a key "default", for whoever names no group')
        attributes = set()
        for key in self.thresholds:
            attribute, _, value = key.partition("=")
            written = attribute.strip() == attribute and value.strip() == value
            if key != "default" and not (attribute and value and written):
                raise ValueError(f'thresholds holds {key!r}; write a group as "sex=F"')
            attributes |= {attribute} - {"default"}
        if len(attributes) > 1:
            raise ValueError(
                f"thresholds tells {' and '.join(sorted(attributes))} apart; choose one "
                "attribute, or nobody could say which threshold holds for a person in two groups"
            )
        return self


# --- app.toml: the gate ------------------------------------------------------------------


class CheckPolicy(Table):
    """What stands in ``[gate.<family>]`` and ``[gate.<family>.<check>]``; the narrower wins."""

    enabled: bool = Field(True, description="Whether the check is an item of the gate.")
    enforcement: Enforcement = Field(Enforcement.BLOCK, description="What a bad verdict does.")
    decide: Literal["evidence", "proof", "estimate"] = Field(
        "evidence", description="How an interval is held against a limit."
    )
    on_inconclusive: Enforcement = Field(
        Enforcement.BLOCK, description="What an undecided verdict does: block or warn."
    )
    confidence_level: float = Field(0.95, gt=0, lt=1, description="Of each stated interval.")
    family_error: float = Field(
        0.05, gt=0, lt=1, description="Error rate over all groups or features of one check."
    )


class Family(CheckPolicy):
    """One ``[gate.<family>]`` with a sub-table for each of its checks."""

    #: Names that may stand as ``[gate.<family>.<name>]``.
    CHECKS: ClassVar[frozenset[str]] = frozenset()
    #: Checks whose table has keys of its own: fields that are a :class:`CheckPolicy`.
    TABLES: ClassVar[frozenset[str]] = frozenset()
    #: Keys of a policy that a check would not honour; its own table may not hold them.
    WITHOUT_EFFECT: ClassVar[Mapping[str, frozenset[str]]] = {}
    #: Checks of which there may be many, each a table with a name of its own.
    NAMED: ClassVar[frozenset[str]] = frozenset()
    #: Keys of :class:`CheckPolicy` that mean nothing here and are refused, and why.
    WITHOUT: ClassVar[Mapping[str, str]] = {}

    checks: dict[str, CheckPolicy] = Field(default_factory=dict, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _narrower_tables(cls, data: object) -> object:
        """Turn ``[gate.family.check]`` into a policy that inherits the family's keys."""
        if not isinstance(data, Mapping):
            return data
        tables = [data, *(data[name] for name in sorted(cls.CHECKS & set(data)))]
        for key in cls.WITHOUT:
            if any(isinstance(one, Mapping) and key in one for one in tables):
                raise ValueError(f"{key} means nothing here: {cls.WITHOUT[key]}")
        for name, keys in cls.WITHOUT_EFFECT.items():
            idle = sorted(keys & set(data.get(name) or ()))
            if idle:
                raise ValueError(f"{idle[0]} has no effect on {name}: leave it out")
        own = {key: value for key, value in data.items() if key not in cls.CHECKS}
        shared = {key: own[key] for key in CheckPolicy.model_fields if key in own}
        for name in cls.CHECKS & set(data):
            if not isinstance(data[name], Mapping):
                # pydantic collects ValueError only.
                raise ValueError(f"[{name}] is a table")  # noqa: TRY004
            own.setdefault("checks", {})[name] = {**shared, **data[name]}
        cls._inherit(own, shared)
        for name in cls.NAMED & set(own):
            if isinstance(own[name], Mapping):
                own[name] = {
                    key: {**shared, **one} if isinstance(one, Mapping) else one
                    for key, one in own[name].items()
                }
        return own

    @classmethod
    def _inherit(cls, own: dict[str, Any], shared: Mapping[str, Any]) -> None:
        """Give the tables that have keys of their own those of the family."""
        for name in cls.TABLES:
            if isinstance(own.get(name), Mapping):
                own[name] = {**shared, **own[name]}
            elif name not in own and cls.model_fields[name].default is not None:
                # A check that nobody wrote a table for has the family's keys all the same.
                own[name] = dict(shared)

    def narrower(self, check: str) -> CheckPolicy | None:
        """Return what is in force by a check's own table; None where it has none."""
        found = getattr(self, check) if check in self.TABLES else self.checks.get(check)
        return found if isinstance(found, CheckPolicy) else None

    def policy(self, check: str) -> CheckPolicy:
        """Return the policy in force for one check of this family."""
        found = self.narrower(check)
        if found is not None:
            return found
        return CheckPolicy(**{key: getattr(self, key) for key in CheckPolicy.model_fields})


class MissingCheck(CheckPolicy):
    """``[gate.data_quality.missing]``."""

    at_most: Ratio = Field(
        0.05, description="Largest change of a column's missing share from training to test."
    )


class RangesCheck(CheckPolicy):
    """``[gate.data_quality.ranges]``."""

    at_most: Ratio = Field(
        0.05, description="Largest share of a column's numbers outside the range of training."
    )


class CategoriesCheck(CheckPolicy):
    """``[gate.data_quality.categories]``."""

    at_most: Ratio = Field(
        0.05, description="Largest share of a column's values that training never saw."
    )


class ConstantsCheck(CheckPolicy):
    """``[gate.data_quality.constants]``."""

    at_most: float = Field(
        0.995, gt=0, lt=1, description="Largest share that one value of a column may have."
    )


class BalanceCheck(CheckPolicy):
    """``[gate.data_quality.balance]``."""

    at_most: Ratio = Field(
        0.1, description="Largest change of a class's share, of all rows or of a group's."
    )


class RepeatedCheck(CheckPolicy):
    """``[gate.data_quality.duplicates]`` and ``[gate.data_quality.overlap]``."""

    at_most: Ratio = Field(0.05, description="Largest share of repeated rows.")


class LeakageCheck(CheckPolicy):
    """``[gate.data_quality.leakage]``."""

    at_most: float = Field(
        0.99,
        gt=0.5,
        lt=1,
        description="Largest AUC (rank correlation for a regression) of one column alone.",
    )


class LabelIssuesCheck(CheckPolicy):
    """``[gate.data_quality.label_issues]``: judged where the table is written."""

    at_most: Ratio = Field(
        0.05, description="Largest share of training rows whose label is probably wrong."
    )
    folds: int = Field(5, ge=2, le=20, description="Parts that probabilities are estimated in.")


class FreshnessCheck(CheckPolicy):
    """``[gate.data_quality.freshness]``: judged where the table is written."""

    at_most: Duration = Field(gt=0, description="Largest age of the newest row of `[data] test`.")


_INTERVAL_KEYS = frozenset({"decide", "confidence_level", "family_error"})
_MANY = frozenset({"family_error"})


class DataQualityGate(Family):
    """``[gate.data_quality]``."""

    CHECKS = frozenset({"schema", "expectations"})
    TABLES = frozenset(
        {
            "missing",
            "ranges",
            "categories",
            "constants",
            "balance",
            "duplicates",
            "overlap",
            "leakage",
            "label_issues",
            "freshness",
        }
    )
    WITHOUT_EFFECT = {
        "schema": _INTERVAL_KEYS,
        "expectations": _INTERVAL_KEYS,
        "constants": _INTERVAL_KEYS,
        "freshness": _INTERVAL_KEYS,
        "duplicates": _MANY,
        "overlap": _MANY,
        "leakage": _MANY,
        "label_issues": _MANY,
    }

    suite: str = Field(
        "checks/{app}/expectations/*.json",
        description="Great Expectations suites, relative to the project's root.",
    )
    missing: MissingCheck = MissingCheck()
    ranges: RangesCheck = RangesCheck()
    categories: CategoriesCheck = CategoriesCheck()
    constants: ConstantsCheck = ConstantsCheck()
    balance: BalanceCheck = BalanceCheck()
    duplicates: RepeatedCheck = RepeatedCheck()
    overlap: RepeatedCheck = RepeatedCheck()
    leakage: LeakageCheck = LeakageCheck()
    label_issues: LabelIssuesCheck | None = Field(
        None, description="Labels that are probably wrong; absent: not judged."
    )
    freshness: FreshnessCheck | None = Field(
        None, description="How old the newest row may be; absent: not judged."
    )


class PiiCheck(CheckPolicy):
    """``[gate.privacy.pii]``."""

    allow: list[str] = Field(
        default_factory=list, description="Columns that may hold personal data."
    )


class ProxiesCheck(CheckPolicy):
    """``[gate.privacy.proxies]``."""

    at_most: float = Field(
        0.8,
        gt=0.5,
        lt=1,
        description="Largest AUC at which the features tell groups of a sensitive column apart.",
    )


class AnonymityCheck(CheckPolicy):
    """``[gate.privacy.k_anonymity]``: judged where the table is written."""

    columns: list[str] = Field(
        min_length=1, description="Columns that together could single a person out."
    )
    at_least: int = Field(5, ge=2, description="Rows that must share each combination of values.")


class PrivacyGate(Family):
    """``[gate.privacy]``."""

    TABLES = frozenset({"pii", "proxies", "k_anonymity"})
    WITHOUT_EFFECT = {"pii": _INTERVAL_KEYS, "k_anonymity": _INTERVAL_KEYS}

    pii: PiiCheck = PiiCheck()
    proxies: ProxiesCheck = ProxiesCheck()
    k_anonymity: AnonymityCheck | None = Field(
        None, description="How many rows must look alike; absent: not judged."
    )


#: What live traffic can be compared by, window after window.
GroupMetric = Literal[
    "selection_rate",
    "true_positive_rate",
    "false_positive_rate",
    "false_negative_rate",
    "true_negative_rate",
    "precision",
    "accuracy",
    "mean_absolute_error",
]
#: Those of them that a group is better off with more of: a floor can be put under them.
HIGHER_IS_BETTER = (
    "selection_rate",
    "true_positive_rate",
    "true_negative_rate",
    "precision",
    "accuracy",
)
#: What a gate can compare, by fairlearn's names where it has one.
FairnessMetric = Literal[
    "selection_rate",
    "true_positive_rate",
    "false_positive_rate",
    "false_negative_rate",
    "true_negative_rate",
    "precision",
    "accuracy",
    "f1_score",
    "calibration_error",
    "mean_prediction",
    "mean_absolute_error",
    "mean_residual",
    "demographic_parity",
    "equalized_odds",
    "equal_opportunity",
]
Aggregate = Literal["difference", "ratio", "group_min", "group_max"]
#: Metrics in the unit of the target, so that a limit on them may be any number.
UNIT_METRICS = frozenset({"mean_prediction", "mean_absolute_error", "mean_residual"})
#: Aggregates that a metric does not have: a parity is a comparison, a figure that noise lifts
#: above 0 or that may have either sign has no ratio.
WITHOUT: dict[str, frozenset[str]] = {
    **dict.fromkeys(
        ("demographic_parity", "equalized_odds", "equal_opportunity"),
        frozenset({"group_min", "group_max"}),
    ),
    "calibration_error": frozenset({"ratio"}),
    "mean_residual": frozenset({"ratio", "group_min", "group_max"}),
}


def has_aggregate(metric: str, aggregate: str) -> bool:
    """Whether a metric can be judged by an aggregate."""
    return aggregate not in WITHOUT.get(metric, ())


class DelayedImpactGate(CheckPolicy):
    """``[gate.fairness.delayed_impact]``: what a yes does, later, to the people it is about."""

    success: float = Field(
        gt=0, description="Change of a person's score who is answered yes and succeeds, c₊."
    )
    failure: float = Field(
        lt=0, description="Change of a person's score who is answered yes and fails, c₋."
    )
    at_least: float = Field(
        0.0, description="Least mean change of any group's score, those answered no included."
    )
    margin: float = Field(
        0.0,
        ge=0,
        description="How far below `at_least` a mean must lie for the data to have to show it. "
        "0: what is not proven is undecided.",
    )
    score: str = Field(
        "", description="Column of the score that changes. Default: only the changes are counted."
    )
    low: float | None = Field(
        None, description="Lower end of the score's scale. Default: it has none."
    )
    high: float | None = Field(
        None, description="Upper end of the score's scale. Default: it has none."
    )
    probability: str = Field(
        "",
        description="Column with the probability of success. Default: estimated from `score`, "
        "in each group.",
    )
    utility_success: float = Field(
        1.0, gt=0, description="Worth of a yes that succeeds, to whoever decides, u₊."
    )
    utility_failure: float = Field(
        -1.0, lt=0, description="Worth of a yes that fails, to whoever decides, u₋."
    )

    @model_validator(mode="after")
    def _scale(self) -> Self:
        wanting = [
            key for key in ("low", "high", "probability") if getattr(self, key) not in ("", None)
        ]
        if wanting and not self.score:
            raise ValueError(
                f"{wanting[0]} says something about a score: name its column in `score`"
            )
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("low must lie below high")
        return self


class FairnessGate(Family):
    """``[gate.fairness]``."""

    TABLES = frozenset({"delayed_impact"})
    CHECKS = frozenset(
        {
            f"{metric}_{aggregate}"
            for metric in get_args(FairnessMetric)
            for aggregate in get_args(Aggregate)
            if has_aggregate(metric, aggregate)
        }
        | {"representation", "label_base_rate_difference", "missing_rate_difference"}
    )

    metrics: list[FairnessMetric] = Field(
        ["false_positive_rate", "false_negative_rate"],
        description="What must be alike between groups, by fairlearn's names.",
    )
    aggregate: Aggregate = Field(
        "difference",
        description="How groups are compared: by difference or ratio, or the lowest or highest "
        "group alone with the limit.",
    )
    method: Literal["between_groups", "to_overall"] = Field(
        "between_groups", description="Whom a group is compared with: each other, or everybody."
    )
    at_most: float = Field(
        0.1,
        gt=0,
        description="Largest difference, or highest figure of a group; a ratio, or for errors "
        "of a regression in the unit of the target.",
    )
    at_least: float = Field(
        0.8, gt=0, le=1, description="Smallest ratio, or lowest figure of a group."
    )
    by: list[str | list[str]] = Field(
        default_factory=list,
        description='Attributes to group by; a list in it is an intersection: `["sex", ["sex", '
        '"race"]]`. Default: all of `sensitive`.',
    )
    control: OneOrMany = Field(
        default_factory=list,
        description="Columns within whose values groups are compared, e.g. a job's grade.",
    )
    weight: str = Field("", description="Column with how much each row counts; empty: all alike.")
    min_group_size: int = Field(
        30, ge=1, description="Rows a denominator needs before it says anything."
    )
    optional_groups: list[str] = Field(
        default_factory=list, description='Groups that may be undecided, as "column=value".'
    )
    required_groups: list[str] = Field(
        default_factory=list,
        description='Groups of an intersection that must be decided, as "sex=F,race=B"; its '
        "others are only listed. With `control`, groups that must be decided at each value.",
    )
    population: dict[str, Ratio] = Field(
        default_factory=dict,
        description='Stated share of groups among the people it is for, as "sex=F" = 0.51. '
        "Where given, the data's shares are held against it.",
    )
    representation_at_most: float = Field(
        0.05, gt=0, lt=1, description="Largest distance of a group's share from the stated one."
    )
    base_rate_at_most: float | None = Field(
        None,
        gt=0,
        description="Largest difference of the label's rate (of a regression: mean) between "
        "groups. Default: not judged.",
    )
    missing_at_most: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Largest difference of a feature's missing share between groups. "
        "Default: not judged.",
    )

    delayed_impact: DelayedImpactGate | None = Field(
        None, description="What an answer does to people later; absent: not judged."
    )

    @property
    def columns(self) -> list[str]:
        """Every attribute that `by` names, alone or in an intersection, once."""
        named = [[one] if isinstance(one, str) else one for one in self.by]
        return list(dict.fromkeys(column for one in named for column in one))

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for metric in self.metrics:
            if not has_aggregate(metric, self.aggregate):
                raise ValueError(f'{metric} has no aggregate = "{self.aggregate}"')
            limited = self.aggregate in ("difference", "group_max")
            if limited and self.at_most > 1 and metric not in UNIT_METRICS:
                raise ValueError(f"at_most = {self.at_most:g}, and {metric} is at most 1")
        if any(not one or len(set(one)) < len(one) for one in self.by if isinstance(one, list)):
            raise ValueError("an intersection in `by` names its columns, each once")
        for key, groups in (
            ("optional_groups", self.optional_groups),
            ("required_groups", self.required_groups),
            ("population", self.population),
        ):
            for group in groups:
                if "=" not in group:
                    raise ValueError(f'{key} holds {group!r}; write it as "column=value"')
        stated: dict[str, float] = {}
        for group, share in self.population.items():
            column = group.partition("=")[0].strip()
            stated[column] = stated.get(column, 0.0) + share
        # Shares are written with two or three digits, so their sum is about 1 at best.
        if any(total > 1.01 for total in stated.values()):  # noqa: PLR2004
            raise ValueError("the shares of population add up to more than 1 for an attribute")
        return self


#: A comparison of a column with a value, as ``"age < 30"``.
SLICE = re.compile(r"\s*(?P<column>[^<>=!]+?)\s*(?P<sign><=|>=|!=|<|>|=)\s*(?P<value>[^<>=!]+?)\s*")


class BaselineGate(Family):
    """``[gate.baseline]``."""

    CHECKS = frozenset({"beats", "beats_in", "matches", "no_worse_than", "no_worse_in"})
    WITHOUT: ClassVar[Mapping[str, str]] = {
        "decide": "a comparison passes only where its lower bound clears the line, and fails only "
        "where its upper bound does not"
    }

    metric: Literal["accuracy", "mean_absolute_error"] | None = Field(
        None, description="Default: accuracy, or mean_absolute_error for a regression."
    )
    beats: Literal["majority", "mean", "stump", "linear"] | None = Field(
        None, description="Simple model to beat. Default: majority, or mean for a regression."
    )
    delta: float = Field(0.0, ge=0, description="By at least how much it must be beaten.")
    margin: float = Field(
        0.02,
        ge=0,
        description="How far it may fall behind the live version, and the models of `must_match`.",
    )
    must_match: list[Literal["majority", "mean", "stump", "linear"]] = Field(
        default_factory=list,
        description="Simple models that it may not fall behind by more than `margin`.",
    )
    by: OneOrMany = Field(
        default_factory=list,
        description="Columns in each of whose groups it must beat the simple model, and must not "
        "fall behind the live version.",
    )
    slices: dict[str, Text] = Field(
        default_factory=dict,
        description="Named parts of the rows that are held to the same, as "
        '`{young = "age < 30", "young in Ulm" = "age < 30 and city = Ulm"}`.',
    )
    min_group_size: int = Field(
        30, ge=1, description="Rows that a group or slice needs before it says anything."
    )
    optional_groups: list[str] = Field(
        default_factory=list,
        description='Groups, as "column=value", and slices that may be undecided.',
    )

    @model_validator(mode="after")
    def _readable_slices(self) -> Self:
        for name, text in self.slices.items():
            for part in text.split(" and "):
                if SLICE.fullmatch(part) is None:
                    raise ValueError(
                        f"slices.{name} holds {part!r}; write a comparison of a column with a "
                        'value, like "age < 30" or "city = Ulm", joined by " and "'
                    )
        return self


class InvarianceRule(CheckPolicy):
    """``[gate.behaviour.invariance.<name>]``: a change that must not matter."""

    column: Text = Field(description="Column that is changed.")
    change: Literal["typo", "case", "space", "noise", "swap"] = Field(
        description="What is done to it: a typing slip, other capitals, stray blanks, a small "
        "shift of a number up or down, or another one of its `values`."
    )
    size: float = Field(
        0.01, gt=0, description="Size of the shift, in standard deviations of the column."
    )
    values: list[str] = Field(
        default_factory=list,
        description="Values that are swapped, each for the next. Default: all of the column's.",
    )
    tolerance: float = Field(
        0.0, ge=0, description="Change of a regression's answer that is ignored, in its unit."
    )
    at_most: float = Field(
        0.05, ge=0, lt=1, description="Largest share of the changed rows that may be answered anew."
    )


class DirectionalRule(CheckPolicy):
    """``[gate.behaviour.directional.<name>]``: a change whose direction is known."""

    column: Text = Field(description="Column of numbers that is changed.")
    add: float | None = Field(None, description="What is added to it.")
    multiply: float | None = Field(None, description="What it is multiplied by, instead.")
    expect: Literal["not_lower", "not_higher"] = Field(
        "not_lower", description="What the score, or a regression's answer, must not become."
    )
    of: str = Field(
        "", description="Class whose score is meant. Default: the second of two classes."
    )
    tolerance: float = Field(
        1e-9, ge=0, description="Move in the wrong direction that is ignored, in the score's unit."
    )
    at_most: float = Field(
        0.05, ge=0, lt=1, description="Largest share of rows that may move in the wrong direction."
    )

    @model_validator(mode="after")
    def _one_change(self) -> Self:
        if (self.add is None) == (self.multiply is None):
            raise ValueError("say how the column changes, in one way: add or multiply")
        if self.add == 0 or self.multiply == 1:
            raise ValueError("a change that changes nothing shows nothing")
        return self


class MinimumRule(CheckPolicy):
    """``[gate.behaviour.minimum_functionality.<name>]``: cases that must be answered right."""

    file: Text = Field(description="CSV or Parquet file of labelled cases.")
    at_least: Ratio = Field(1.0, description="Share of them that must be right.")
    tolerance: float = Field(
        0.0, ge=0, description="Error of a regression that still counts as right, in its unit."
    )


class FlipsRule(CheckPolicy):
    """``[gate.behaviour.flips]``: how many rows are answered otherwise than by the live version."""

    at_most: Ratio = Field(0.1, description="Largest share of rows that are answered otherwise.")
    tolerance: float = Field(
        0.0, ge=0, description="Difference of a regression's answers that is ignored, in its unit."
    )


class CalibrationRule(CheckPolicy):
    """``[gate.behaviour.calibration]``: whether scores are frequencies."""

    at_most: float = Field(0.1, gt=0, lt=1, description="Largest expected calibration error.")


class ReproducibilityRule(CheckPolicy):
    """``[gate.behaviour.reproducibility]``: the same input gets the same answer."""

    tolerance: float = Field(
        1e-6, ge=0, description="Difference of two scores, or of a regression's answers, ignored."
    )
    rows: int = Field(200, ge=1, description="Test rows that are asked again.")


class CoverageRule(CheckPolicy):
    """``[gate.behaviour.coverage]``: judged where ``[app] uncertainty`` is true."""

    tolerance: float = Field(
        0.05, gt=0, lt=0.5, description="How far below `[app] coverage` it may be found."
    )


class BehaviourGate(Family):
    """``[gate.behaviour]``."""

    TABLES = frozenset({"flips", "calibration", "reproducibility", "coverage"})
    NAMED = frozenset({"invariance", "directional", "minimum_functionality"})

    invariance: dict[str, InvarianceRule] = Field(
        default_factory=dict, description="Changes that must not matter, by name."
    )
    directional: dict[str, DirectionalRule] = Field(
        default_factory=dict, description="Changes whose direction is known, by name."
    )
    minimum_functionality: dict[str, MinimumRule] = Field(
        default_factory=dict, description="Cases that must be answered right, by name."
    )
    flips: FlipsRule | None = Field(None, description="Absent: not judged.")
    calibration: CalibrationRule | None = Field(None, description="Absent: not judged.")
    reproducibility: ReproducibilityRule | None = Field(None, description="Absent: not judged.")
    coverage: CoverageRule = CoverageRule()


class LatencyRule(CheckPolicy):
    """``[gate.serving.latency]``: how long one row takes the model itself, before compiling."""

    p99_ms: float = Field(gt=0, description="Largest 99th percentile.")
    rows: int = Field(1000, ge=400, description="Rows that are asked one by one.")


class SizeRule(CheckPolicy):
    """``[gate.serving.size]``: how large the model's file is."""

    at_most_mib: float = Field(gt=0, description="Largest size of the file.")


class FeaturesRule(CheckPolicy):
    """``[gate.serving.features]``: how many inputs the model needs."""

    at_most: int = Field(ge=1, description="Largest number of inputs.")


class SkewRule(CheckPolicy):
    """``[gate.serving.skew]``: whether the server answers as the model does offline."""

    rows: int = Field(500, ge=1, description="Test rows that are sent to the server.")
    tolerance: float = Field(
        1e-6, ge=0, description="Difference of a regression's answers that is ignored."
    )


class ServingGate(Family):
    """``[gate.serving]``."""

    TABLES = frozenset({"latency", "size", "features", "skew"})

    latency: LatencyRule | None = Field(None, description="Absent: not judged.")
    size: SizeRule | None = Field(None, description="Absent: not judged.")
    features: FeaturesRule | None = Field(None, description="Absent: not judged.")
    skew: SkewRule | None = Field(None, description="Absent: not judged.")


class GateTables(Table):
    """``[gate]``."""

    data_quality: DataQualityGate = DataQualityGate()
    fairness: FairnessGate = FairnessGate()
    baseline: BaselineGate = BaselineGate()
    behaviour: BehaviourGate = BehaviourGate()
    serving: ServingGate = ServingGate()
    privacy: PrivacyGate = PrivacyGate()


# --- app.toml: after the deploy ----------------------------------------------------------

ActionName = Literal["alert", "freeze", "rollback", "default_output"]


class MonitorTable(Table):
    """What every ``[monitor.<name>]`` has."""

    enabled: bool = Field(True, description="Whether this monitor judges live traffic.")
    action: ActionName = Field("alert", description="The highest level this monitor may reach.")
    window: Duration = Field(
        3600, gt=0, description="A window closes after this long, if not before."
    )
    window_rows: int = Field(500, ge=20, description="A window closes after this many rows.")
    confidence_level: float = Field(0.95, gt=0, lt=1, description="Of each stated interval.")
    freeze_after: int = Field(2, ge=1, description="FAILED windows in a row before a freeze.")
    clear_after: int = Field(3, ge=1, description="PASSED windows in a row that clear an incident.")

    if TYPE_CHECKING:
        # Keys of those that climb the ladder; a sequential monitor acts at its first alarm.
        @property
        def alert_after(self) -> int: ...  # noqa: D102
        @property
        def rollback_after(self) -> int: ...  # noqa: D102


class WindowedMonitor(MonitorTable):
    """What a monitor has whose windows climb the ladder of failures in a row."""

    alert_after: int = Field(1, ge=1, description="FAILED windows in a row before an alert.")
    rollback_after: int = Field(3, ge=1, description="FAILED windows in a row before a rollback.")


class DataDriftMonitor(WindowedMonitor):
    """``[monitor.data_drift]``."""

    family_error: float = Field(0.05, gt=0, lt=1, description="Error rate over all features.")
    ks: Ratio = Field(0.1, description="Largest Kolmogorov-Smirnov distance of a number.")
    psi: float = Field(0.2, gt=0, description="Largest population stability index of a category.")
    missing: Ratio = Field(0.05, description="Largest rise of the missing or unseen share.")


class PredictionDriftMonitor(WindowedMonitor):
    """``[monitor.prediction_drift]``."""

    family_error: float = Field(0.05, gt=0, lt=1, description="Error rate over all comparisons.")
    ks: Ratio = Field(0.1, description="Largest Kolmogorov-Smirnov distance of scores or values.")
    psi: float = Field(0.2, gt=0, description="Largest population stability index of the classes.")


class LabelDriftMonitor(PredictionDriftMonitor):
    """``[monitor.label_drift]``."""


DetectorName = Literal["e-detector", "ADWIN", "PageHinkley", "DDM", "HDDM_A", "HDDM_W", "KSWIN"]
#: Detectors that river brings.
RIVER_DETECTORS = tuple(one for one in get_args(DetectorName) if one != "e-detector")


class ConceptDriftMonitor(MonitorTable):
    """``[monitor.concept_drift]``."""

    action: ActionName = Field(
        "rollback",
        description="The highest level this monitor may reach; with a detector of river's, which "
        "promises nothing about false alarms, `freeze` where nothing is written.",
    )
    detector: DetectorName = Field(
        "e-detector",
        description="What looks at the losses. All but the e-detector are river's: "
        '`pip install "mlguard[river]"`.',
    )
    tolerance: float = Field(0.02, ge=0, description="Rise of the loss that is ignored.")
    average_run_length: float = Field(
        100_000,
        ge=100,
        description="Labels to a false alarm, on average, at least; shared with the alarms of "
        "`[monitor.fairness]`.",
    )
    block: int = Field(1, ge=1, description="Labels averaged into one look, where errors run.")
    relearn: bool = Field(
        False, description="Whether a lasting improvement lowers the loss that is acceptable."
    )

    @property
    def alert_after(self) -> int:
        """An alarm acts at once."""
        return 1

    @property
    def rollback_after(self) -> int:
        """An alarm acts at once."""
        return 1

    @model_validator(mode="before")
    @classmethod
    def _milder_without_a_promise(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("detector", "e-detector") in RIVER_DETECTORS:
            return {"action": "freeze", **given}
        return given

    @model_validator(mode="after")
    def _detector(self) -> Self:
        if self.detector == "e-detector":
            return self
        if importlib.util.find_spec("river") is None:
            raise ValueError(
                f'detector = "{self.detector}" is river\'s, and river is not installed: '
                'pip install "mlguard[river]", or use "e-detector"'
            )
        if self.block > 1 or self.relearn:
            raise ValueError(f"block and relearn are the e-detector's, not {self.detector}'s")
        return self


class FairnessMonitor(WindowedMonitor):
    """``[monitor.fairness]``."""

    action: ActionName = "rollback"
    family_error: float = Field(0.05, gt=0, lt=1, description="Error rate over all groups.")
    metric: GroupMetric = Field("accuracy", description="What is compared between groups.")
    at_most: float = Field(0.1, gt=0, le=1, description="Largest difference between two groups.")
    by: list[str] = Field(default_factory=list, description="Default: all of `sensitive`.")
    min_group_size: int = Field(30, ge=1, description="Rows a group's denominator needs.")
    tolerance: float = Field(
        0.02, ge=0, description="Rise of a group's own loss that raises no alarm."
    )
    block: int = Field(
        1, ge=1, description="Labels of a group averaged into one look, where errors run."
    )
    floor: float | None = Field(
        None, gt=0, le=1, description="Lowest `metric` of any group. Default: not judged."
    )
    harm_class: bool = Field(
        False,
        description="Whether a group below the `floor` is harm: rather the default output than a "
        "version that is known for it, where none can be gone back to.",
    )

    @model_validator(mode="after")
    def _floor(self) -> Self:
        if self.harm_class and self.floor is None:
            raise ValueError("harm_class says what a group below the floor means: give a floor")
        if self.floor is not None and self.metric not in HIGHER_IS_BETTER:
            raise ValueError(
                f"{self.metric} has no floor; those that have: {', '.join(HIGHER_IS_BETTER)}"
            )
        return self


class EstimatedPerformanceMonitor(WindowedMonitor):
    """``[monitor.estimated_performance]``."""

    action: Literal["alert", "freeze"] = Field(
        "freeze",
        description="The highest level this monitor may reach. An estimate never moves traffic.",
    )
    metric: Literal["accuracy", "f1", "auc"] = Field(
        "accuracy", description="What is estimated from the scores, without labels."
    )
    tolerance: float = Field(
        0.02, ge=0, lt=1, description="Fall below the figure on the test data that is ignored."
    )


class RequestsMonitor(WindowedMonitor):
    """``[monitor.requests]``."""

    unusual: Ratio = Field(
        0.05,
        description="Largest share of rows with a value unlike the reference's: outside its "
        "range, a category it never had, or missing where it never was. What chance alone "
        "brings is added.",
    )
    refused: Ratio = Field(
        0.1, description="Largest share of requests that are refused as malformed (4xx)."
    )


class ServiceMonitor(WindowedMonitor):
    """``[monitor.service]``."""

    action: ActionName = "rollback"
    model_errors: Ratio = Field(
        0.01, description="Largest share of valid rows on which the model raised or gave nonsense."
    )
    default_ratio: Ratio = Field(0.1, description="Largest share of default answers.")


class MonitorTables(Table):
    """``[monitor]``."""

    data_drift: DataDriftMonitor = DataDriftMonitor()
    prediction_drift: PredictionDriftMonitor = PredictionDriftMonitor()
    label_drift: LabelDriftMonitor = LabelDriftMonitor()
    estimated_performance: EstimatedPerformanceMonitor = EstimatedPerformanceMonitor()
    requests: RequestsMonitor = RequestsMonitor()
    concept_drift: ConceptDriftMonitor = ConceptDriftMonitor()
    fairness: FairnessMonitor = FairnessMonitor()
    service: ServiceMonitor = ServiceMonitor()


#: What a step of a rollout can be compared by.
Compared = Literal["failures", "loss"]


class RolloutTable(Table):
    """``[rollout]``."""

    steps: list[Literal["shadow"] | float] = Field(
        default_factory=list,
        description='What a new version goes through before it answers everybody: `"shadow"` '
        "(it sees every request, its answers are discarded), then shares of the callers in "
        'rising order, e.g. `["shadow", 0.05, 0.25]`. Default: none, a straight switch.',
    )
    step_min_time: Duration = Field(600, ge=0, description="Shortest time of a step.")
    step_deadline: Duration = Field(
        6 * 3600, gt=0, description="A step that is undecided for so long ends the rollout."
    )
    step_min_rows: int = Field(
        100, ge=20, description="Rows that each comparison of a step needs, of each version."
    )
    margin: Ratio = Field(
        0.02, description="By how much the new version's loss may exceed the live one's."
    )
    alpha: float = Field(
        0.01, gt=0, lt=1, description="Chance that a rollout of an equal version is called worse."
    )
    compare: list[Compared] = Field(
        default_factory=lambda: list(get_args(Compared)),
        min_length=1,
        description="What must be decided before a step passes: `failures` (default answers), "
        "`loss` (needs labels). One that is not named may still fail the step.",
    )
    bake: Duration = Field(600, ge=0, description="How long a new version is watched.")
    max_bake: Duration = Field(
        7 * 86400, gt=0, description="A version that is unconfirmed for so long is mailed about."
    )
    reverse_shadow: Ratio = Field(
        0.1, description="Share of the requests that the predecessor sees while it may be needed."
    )
    bake_min_rows: int = Field(0, ge=0, description="Rows it must answer before it is confirmed.")
    evidence_max_age: Duration = Field(
        30 * 86400, gt=0, description="Age after which evidence no longer opens the gate."
    )
    load_timeout: Duration = Field(
        60, gt=0, description="How long a server may take to load a version."
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if "shadow" in self.steps[1:]:
            raise ValueError('steps: "shadow" comes first, and once')
        weights = [one for one in self.steps if one != "shadow"]
        if any(not 0 < float(one) < 1 for one in weights):
            raise ValueError("steps: a share lies between 0 and 1; the switch itself is no step")
        if any(later <= earlier for earlier, later in itertools.pairwise(map(float, weights))):
            raise ValueError("steps: the shares rise from step to step")
        if self.step_deadline <= self.step_min_time:
            raise ValueError("step_deadline is longer than step_min_time")
        return self


class AutoTable(Table):
    """``[auto]``: what may happen without a human."""

    rollback: bool = Field(True, description="Whether a monitor may roll back at all.")
    on_no_target: Literal["freeze", "default_output"] = Field(
        "freeze", description="What happens where there is nothing to go back to."
    )
    on_data_break: Literal["freeze", "default_output"] = Field(
        "freeze", description="What happens where the old version would do no better."
    )
    grace: Duration = Field(600, ge=0, description="No action this long after a switch.")
    cooldown: Duration = Field(1800, ge=0, description="Pause after an automatic move; it doubles.")
    cooldown_max: Duration = Field(86400, ge=0, description="Longest pause.")
    budget: int = Field(2, ge=0, description="Automatic moves in a budget_window.")
    budget_window: Duration = Field(86400, gt=0, description="Time in which they count.")
    qualify: bool = Field(True, description="Replay the failing window through the target first.")
    targets_tried: int = Field(3, ge=1, description="Targets looked at before giving up.")
    keep_warm: int = Field(
        1, ge=1, description="Versions to go back to that every server keeps loaded."
    )
    rehearse: Literal["daily", "never"] = Field(
        "daily", description="How often the version to go back to is loaded and asked, as a test."
    )


class ApproveTable(Table):
    """``[approve]``: who lets a version through."""

    required: bool = Field(
        False, description="Whether every version that the gate allows waits for `approve`."
    )
    not_by_registrar: bool = Field(
        True, description="Where approval is required: not by who registered the version."
    )


class LabelsTable(Table):
    """``[labels]``."""

    delay: Duration = Field(7 * 86400, ge=0, description="How late a label may be.")
    min_coverage: Ratio = Field(0.5, description="Share of due labels a verdict needs.")
    max_source_share: Ratio = Field(
        0.25,
        description="Largest share of a window's labels that one source may have sent, where at "
        "least 5 sources are usual; beyond it `concept_drift` and `fairness.loss` are undecided.",
    )
    trusted_sources: list[str] = Field(
        default_factory=list,
        description="Names of the keys whose labels are judged by; those of others are kept and "
        "move nothing. Default: all.",
    )


class LogTable(Table):
    """``[log]``: what the prediction log keeps."""

    inputs: Literal["all", "none"] = Field("all", description="Whether input rows are kept.")
    retention: Duration = Field(30 * 86400, gt=0, description="How long rows are kept.")
    redact: list[str] = Field(default_factory=list, description="Columns that are never written.")


class ReportTable(Table):
    """``[report]``."""

    schedule: Literal["weekly", "daily", "none"] = Field(
        "weekly", description="How often the drift report is mailed."
    )


class AppSettings(Table):
    """The whole of one ``app.toml``, with its name and its folder."""

    app: AppTable
    data: DataTable
    model: ModelTable = ModelTable()
    gate: GateTables = GateTables()
    monitor: MonitorTables = MonitorTables()
    rollout: RolloutTable = RolloutTable()
    auto: AutoTable = AutoTable()
    approve: ApproveTable = ApproveTable()
    labels: LabelsTable = LabelsTable()
    log: LogTable = LogTable()
    report: ReportTable = ReportTable()
    name: str = Field("", exclude=True)
    folder: Path = Field(Path(), exclude=True)

    @model_validator(mode="after")
    def _groups_that_decide(self) -> Self:
        if self.app.groups_affect_decisions and not self.app.keys:
            raise ValueError(
                "[app] groups_affect_decisions is for callers that are known: name their keys in "
                "[app] keys"
            )
        attribute = self.model.threshold_attribute
        if not attribute:
            return self
        if not self.app.groups_affect_decisions:
            raise ValueError(
                f"[model.thresholds] has thresholds by {attribute}, which are in force only with "
                "[app] groups_affect_decisions = true"
            )
        if attribute not in self.data.sensitive:
            declared = ", ".join(self.data.sensitive) or "none"
            raise ValueError(
                f"[model.thresholds] has thresholds by {attribute}, which is not in [data] "
                f"sensitive; declared: {declared}" + _nearest(attribute, self.data.sensitive)
            )
        if self.app.task != "classification":
            raise ValueError(
                f"[model.thresholds] has thresholds by {attribute}; a regression has none"
            )
        return self

    def path(self, text: str) -> str:
        """Return a path of app.toml made absolute; a URL stays as it is."""
        return text if "://" in text else str((self.folder / text).resolve())


# --- reading -----------------------------------------------------------------------------


def load_project(root: Path | str) -> ProjectSettings:
    """Read ``mlguard.toml`` of the project at ``root``.

    Raises
    ------
    NotFoundError
        If there is no ``mlguard.toml``.
    ConfigError
        If it is not valid.
    """
    root = Path(root).resolve()
    file = root / "mlguard.toml"
    if not file.is_file():
        raise NotFoundError(
            f"no mlguard.toml in {root}",
            hint="go to a project's folder, name one with --project, or make one: mlguard init",
        )
    return _validated(ProjectSettings, file, root=root)


def load_app(project: ProjectSettings, name: str) -> AppSettings:
    """Read ``serving/<name>/app.toml``.

    Raises
    ------
    NotFoundError
        If the project has no such app.
    ConfigError
        If the name or the file is not valid.
    """
    if not APP_NAME.fullmatch(name) or name in RESERVED_NAMES:
        raise ConfigError(
            f"{name!r} cannot be the name of an app",
            hint="use 1 to 64 of a-z, 0-9, dot, dash, underscore; reserved: "
            + ", ".join(sorted(RESERVED_NAMES)),
        )
    folder = project.root / "serving" / name
    if not (folder / "app.toml").is_file():
        known = project.app_names()
        raise NotFoundError(
            f"no app {name!r}: there is no {folder / 'app.toml'}",
            hint=f"apps of this project: {', '.join(known) or 'none'}" + _nearest(name, known),
        )
    return _validated(AppSettings, folder / "app.toml", name=name, folder=folder)


def find_root(start: Path | str | None = None) -> Path:
    """Return the nearest folder at or above ``start`` that holds an ``mlguard.toml``."""
    here = Path(start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "mlguard.toml").is_file():
            return folder
    return here


def _validated(kind: type[AnyTable], file: Path, **extra: object) -> AnyTable:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}", file=str(file)) from error
    for key in extra:
        if key in document:
            raise ConfigError(_unknown(kind, file, "", key), file=str(file))
    try:
        return kind.model_validate({**document, **extra})
    except ValidationError as error:
        raise _config_error(kind, file, error) from error


def _config_error(kind: type[Table], file: Path, error: ValidationError) -> ConfigError:
    """Say what is wrong with the first few keys, as people wrote them."""
    lines = []
    for one in error.errors(include_url=False)[:5]:
        *tables, key = (str(part) for part in one["loc"] or ("",))
        table = ".".join(part for part in tables if part != "checks")
        place = f"[{table}] {key}" if table else f"{key}"
        if one["type"] == "extra_forbidden":
            lines.append(_unknown(kind, file, table, key))
        elif one["type"] == "missing":
            lines.append(f"{file}: {place} is missing; {_meaning(kind, [*tables, key])}")
        else:
            found = "" if isinstance(one["input"], dict) else f" = {one['input']!r}"
            why = one["msg"].removeprefix("Value error, ")
            lines.append(f"{file}: {place}{found}: {why}" if place else f"{file}: {why}")
    return ConfigError("\n".join(lines), hint="see docs/reference/configuration.md", file=str(file))


def _table(kind: type[Table], tables: list[str]) -> type[Table] | None:
    named = False
    for part in tables:
        if named:
            # The name that somebody gave to one table of many.
            named = False
            continue
        spec = kind.model_fields.get(part)
        options = (*get_args(spec.annotation), spec.annotation) if spec else ()
        named = issubclass(kind, Family) and part in kind.NAMED
        if issubclass(kind, Family) and part in kind.CHECKS:
            options = (CheckPolicy,)
        inner = [one for one in options if isinstance(one, type) and issubclass(one, Table)]
        if not inner:
            return None
        kind = inner[0]
    return kind


def _meaning(kind: type[Table], path: list[str]) -> str:
    table = _table(kind, path[:-1])
    spec = table.model_fields.get(path[-1]) if table else None
    return f"write: {spec.description}" if spec and spec.description else "it is required"


def _unknown(kind: type[Table], file: Path, table: str, key: str) -> str:
    inner = _table(kind, table.split(".") if table else [])
    known: set[str] = set()
    if inner is not None:
        hidden = {"root", "name", "folder", "checks"}
        known = {
            spec.alias or name
            for name, spec in inner.model_fields.items()
            if not (spec.exclude and name in hidden)
        }
        if issubclass(inner, Family):
            known |= inner.CHECKS
    where = f"[{table}]" if table else "the top level"
    return f"{file}: unknown key {key!r} in {where}; known: {', '.join(sorted(known))}" + _nearest(
        key, known
    )


def _nearest(name: str, known: set[str] | list[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
