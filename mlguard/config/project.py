"""The tables of ``mlguard.toml``: registry, server, and who is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from mlguard.config.values import Duration, OneOrMany, Table, checked_daily, checked_span


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


class LogStoreTable(Table):
    """``[log_store]``: where the prediction log goes beside this machine's disk."""

    url: str = Field(
        "",
        description="URL that fsspec knows, such as `s3://bucket/prefix` (`pip install "
        "mlguard[s3]`), to which closed segments of the prediction log are carried, and from which "
        "those of other machines come. Empty: the log stays on this machine.",
    )
    segment: Duration = Field(
        120, ge=5, description="A segment is closed when it is so old, so that it can be carried."
    )
    spool_mib: float = Field(
        1024,
        gt=0,
        description="What may wait on this machine while the store takes nothing, in MiB; beyond "
        "it predictions are not logged any more (they are counted).",
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
    digest: Annotated[str, AfterValidator(checked_daily)] = Field(
        "08:00 UTC",
        description='When the daily digest goes out: a time and a zone, e.g. "08:00 Europe/Paris".',
    )
    quiet: Annotated[str, AfterValidator(checked_span)] = Field(
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
    log_store: LogStoreTable = LogStoreTable()
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

    @property
    def log_url(self) -> str:
        """The URL of the prediction log's store with a relative path made absolute; or empty."""
        url = self.log_store.url
        return url if "://" in url or not url else str((self.root / url).resolve())

    def app_names(self) -> list[str]:
        """Names of the apps declared under ``serving/``, sorted."""
        return sorted(path.parent.name for path in (self.root / "serving").glob("*/app.toml"))
