"""Every setting, with its default and its environment variable. Only the edges build one from the environment."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ledgerq.durations import Seconds
from ledgerq.errors import ConfigurationError

DEFAULT_QUEUE: Final = "processing"
QUEUE_NAME: Final = r"^[a-z0-9][a-z0-9_.-]{0,62}$"
"""What the ledger takes for a name of a queue."""


def _env(*names: str) -> AliasChoices:
    return AliasChoices(*names)


class Settings(BaseSettings):
    """Where the parts are, and how patient we are with them. All optional; unset parts are asked for when they are needed."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, env_prefix="LEDGERQ_", env_ignore_empty=True, use_attribute_docstrings=True
    )

    # --- the ledger: a direct connection, or a Supabase project over HTTP
    database_url: SecretStr | None = Field(default=None, validation_alias=_env("LEDGERQ_DATABASE_URL", "DATABASE_URL"))
    """`postgresql://…`; behind a transaction pooler is fine."""
    supabase_url: str | None = Field(default=None, validation_alias=_env("SUPABASE_URL"))
    """Address of a Supabase project, `https://….supabase.co`. With its key it is the ledger where `DATABASE_URL` names none, and serves
    documents that lie in Supabase Storage."""
    supabase_key: SecretStr | None = Field(
        default=None, validation_alias=_env("SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY", "SUPABASE_KEY")
    )
    """Its secret key (`sb_secret_…`) or service-role key."""
    ledger_timeout_s: Seconds = Field(default=10.0, gt=0, validation_alias=_env("LEDGERQ_LEDGER_TIMEOUT"))
    """Longest wait for one try of a call; it is tried again for as long, and then given up. Above the 8 s statement timeout of a Supabase
    project, so that the database gives up first."""
    ledger_pool_size: int = Field(default=4, ge=1, le=100, validation_alias=_env("LEDGERQ_LEDGER_POOL_SIZE"))
    """Most connections of one process that serves many threads; a worker uses one."""

    # --- the queue
    redis_url: SecretStr | None = Field(default=None, validation_alias=_env("LEDGERQ_REDIS_URL", "REDIS_URL"))
    """`redis://…` or `rediss://…`; without it the four settings below."""
    redis_host: str = Field(default="localhost", validation_alias=_env("REDIS_HOST"))
    """Host, when there is no URL."""
    redis_port: int = Field(default=6379, ge=1, le=65535, validation_alias=_env("REDIS_PORT"))
    """Port, when there is no URL."""
    redis_db: int = Field(default=0, ge=0, validation_alias=_env("REDIS_DB"))
    """Logical database, when there is no URL."""
    redis_password: SecretStr | None = Field(default=None, validation_alias=_env("REDIS_PASSWORD"))
    """Password, when there is no URL."""
    queue: str = Field(default=DEFAULT_QUEUE, pattern=QUEUE_NAME, validation_alias=_env("LEDGERQ_QUEUE", "JOB_QUEUE_NAME"))
    """The queue of jobs that name none. Another than `processing` is made with `ledgerq queue save`."""
    result_ttl_s: Seconds = Field(default=86_400.0, ge=0, validation_alias=_env("LEDGERQ_RESULT_TTL", "JOB_RESULT_TTL"))
    """How long RQ keeps the hash of an ended run. Results themselves live in the ledger."""
    task_timeout_s: Seconds | None = Field(default=None, gt=0, le=86_400, validation_alias=_env("LEDGERQ_TASK_TIMEOUT", "JOB_TIMEOUT"))
    """Timeout of a task where neither the job nor its handler has one."""

    # --- vectors and embeddings
    qdrant_url: str | None = Field(default=None, validation_alias=_env("LEDGERQ_QDRANT_URL", "QDRANT_URL"))
    """`http://…:6333`, or the address of a Qdrant Cloud cluster."""
    qdrant_api_key: SecretStr | None = Field(default=None, validation_alias=_env("LEDGERQ_QDRANT_API_KEY", "QDRANT_API_KEY"))
    """Its key."""
    collection: str = Field(default="ledgerq", validation_alias=_env("LEDGERQ_COLLECTION"))
    """Name of the collection that holds the points. Under another name there are none: documents that are processed again are
    embedded anew, and others are not found there."""
    openai_api_key: SecretStr | None = Field(default=None, validation_alias=_env("OPENAI_API_KEY"))
    """Key of OpenAI, or of a compatible service."""
    openai_base_url: str | None = Field(default=None, validation_alias=_env("OPENAI_BASE_URL"))
    """Address of a service that speaks OpenAI's protocol."""
    embedder: str | None = Field(default=None, validation_alias=_env("LEDGERQ_EMBEDDER"))
    """`offline`, or `openai:<model>`; without it `openai:text-embedding-3-small` if there is a key, else `offline`."""
    chunk_tokens: int = Field(default=512, ge=16, le=8_191, validation_alias=_env("LEDGERQ_CHUNK_TOKENS"))
    """Most tokens of a chunk."""
    chunk_overlap: int = Field(default=64, ge=0, validation_alias=_env("LEDGERQ_CHUNK_OVERLAP"))
    """Tokens that a chunk repeats of the one before."""

    files_root: Path | None = Field(default=None, validation_alias=_env("LEDGERQ_FILES_ROOT"))
    """The folder that `file:` documents must be in, links resolved; without it, whoever saves a document may name any file that a worker
    can read."""

    # --- workers and stewards
    app: str | None = Field(default=None, validation_alias=_env("LEDGERQ_APP"))
    """`package.module:handlers`, the registry of your own handlers."""
    backoff_factor: float = Field(default=2.0, ge=1, le=10, validation_alias=_env("LEDGERQ_BACKOFF_FACTOR"))
    """Each wait before another attempt at a document is this many times the one before. Your own handlers: `RetryPolicy(factor=…)`."""
    steward_interval_s: Seconds = Field(default=5.0, gt=0, validation_alias=_env("LEDGERQ_STEWARD_INTERVAL"))
    """Seconds between two rounds of the steward."""
    keep_finished_s: Seconds = Field(default=30 * 86_400.0, ge=0, validation_alias=_env("LEDGERQ_KEEP_FINISHED"))
    """Finished jobs are pruned after this long."""
    reader_grace_s: Seconds = Field(default=60.0, ge=0, validation_alias=_env("LEDGERQ_READER_GRACE"))
    """A replaced generation of points is removed no sooner than this."""

    # --- this machine
    data_dir: Path = Field(default=Path(".ledgerq"), validation_alias=_env("LEDGERQ_DATA_DIR"))
    """Folder of the embedded stack."""
    log_level: str = Field(default="warning", pattern="^(debug|info|warning|error|critical)$", validation_alias=_env("LEDGERQ_LOG_LEVEL"))
    """What is worth a line on standard error."""
    log_format: str = Field(default="console", pattern="^(console|json)$", validation_alias=_env("LEDGERQ_LOG_FORMAT"))
    """Lines for people, or one JSON object a line."""

    @field_validator("redis_port", mode="before")
    @classmethod
    def _port_of_a_link(cls, value: object) -> object:
        """Kubernetes and Docker set `REDIS_PORT=tcp://10.0.0.1:6379` in each container beside a service of that name."""
        return value.rpartition(":")[2] if isinstance(value, str) and value.startswith("tcp://") else value

    @model_validator(mode="after")
    def _overlap_fits(self) -> Self:
        if self.chunk_overlap >= self.chunk_tokens:
            raise ValueError(f"LEDGERQ_CHUNK_OVERLAP: {self.chunk_overlap} is no less than the {self.chunk_tokens} tokens of a chunk")
        return self

    @cached_property
    def redis_dsn(self) -> str:
        """`REDIS_URL`, or the URL that the four separate settings make. Holds the password: never log it."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        password = "" if self.redis_password is None else f":{quote(self.redis_password.get_secret_value(), safe='')}@"
        return f"redis://{password}{self.redis_host}:{self.redis_port}/{self.redis_db}"

    @property
    def database_dsn(self) -> str:
        """The direct connection. Holds the password: never log it.

        Raises:
            ConfigurationError: there is none; says which variables to set.
        """
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        if self.supabase_url is not None:
            raise ConfigurationError(
                "this takes a direct connection to the database: set DATABASE_URL as well (postgresql://…);"
                " a schema is brought up to date by `supabase db push` too"
            )
        raise ConfigurationError(
            "no ledger: set DATABASE_URL (postgresql://…) or SUPABASE_URL with SUPABASE_SERVICE_ROLE_KEY,"
            " or start one on this machine with `ledgerq up`"
        )

    @property
    def supabase_project(self) -> tuple[str, str]:
        """Address and key of the Supabase project. Holds the key: never log it.

        Raises:
            ConfigurationError: one of the two is missing; says which variable to set.
        """
        if self.supabase_url is None:
            raise ConfigurationError("no Supabase project: set SUPABASE_URL (https://<project>.supabase.co)")
        if self.supabase_key is None:
            raise ConfigurationError("SUPABASE_URL is set without its key: set SUPABASE_SERVICE_ROLE_KEY to the project's secret key")
        return self.supabase_url, self.supabase_key.get_secret_value()


class ProcessingConfig(BaseModel):
    """Five knobs under the names that users of job pollers know, and what they mean here."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    poll_interval: Seconds = Field(default=30.0, gt=0)
    """Seconds between two rounds of the status sync. Nothing is polled to start work: RQ delivers it."""
    batch_size: int = Field(default=100, ge=1, le=500)
    """Most tasks that one run carries."""
    max_retries: int = Field(default=3, ge=0, le=99)
    """Tries after the first; a task has `max_retries + 1` attempts."""
    backoff_factor: float = Field(default=1.5, ge=1, le=10)
    """Each wait is this many times the one before."""
    max_concurrent_jobs: int | None = Field(default=5, ge=1)
    """Most jobs of the queue that are being worked on at once; None is no limit."""
