"""The Delta Lake table of the catalogue, in a bucket of an S3 server.

A commit creates one file of the log under a name that must not exist (If-None-Match), so the server
needs no lock service beside it. A run that dies before that leaves files that no version names.
"""

import datetime as dt
import os
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from arro3.core import Table
from deltalake import CommitProperties, DeltaTable, QueryBuilder, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from resize_pipeline.catalog.columns import SCHEMA, batch_of, missing_columns
from resize_pipeline.catalog.recording import ConflictError
from resize_pipeline.catalog.rows import Row
from resize_pipeline.delivery.row_states import RowState
from resize_pipeline.errors import TransientError, one_line
from resize_pipeline.renditions.analyses import Analysis
from resize_pipeline.resources.http import CONNECT_TIMEOUT_S, READ_TIMEOUT_S
from resize_pipeline.resources.minio import MinioResource

FILE_BYTES = 32 * 2**20
"""Size of the files that compaction writes. A changed row rewrites its file."""
KEPT_HOURS = 48
"""Hours for which files and versions stay that the newest version does not need."""
GONE_DAYS = 30
"""Days for which the rows of removed objects stay."""
_KEPT = f"interval {KEPT_HOURS} hours"
TABLE_CONFIGURATION: dict[str, str | None] = {
    "delta.checkpointInterval": "20",
    "delta.deletedFileRetentionDuration": _KEPT,
    "delta.logRetentionDuration": _KEPT,
}

_opening = threading.Lock()


@dataclass(frozen=True)
class CatalogTable:
    """The table of one pipeline.

    Attributes:
        minio: the server, and the keys to use on it.
        bucket: the bucket of the table, CATALOG_BUCKET.
        name: the table's folder there.
        source_bucket: the bucket that rows are read of.
        analyses: what rows say of pictures besides.
    """

    minio: MinioResource
    bucket: str
    name: str
    source_bucket: str
    analyses: tuple[Analysis, ...] = ()

    @property
    def uri(self) -> str:
        """The table's address."""
        return f"s3://{self.bucket}/{self.name}"

    def newest(self) -> "TableSnapshot":
        """Open the newest version; the first call creates the table.

        Raises:
            TransientError: the server is unreachable.
            UserError: the bucket is missing, or access to it is refused.
        """
        # The client of this package explains what is wrong with a server or a bucket.
        for _ in self.minio.list_objects(self.bucket, f"{self.name}/_delta_log/_last_checkpoint"):
            pass
        with self.errors(), _trusting(self.minio.ca_file):
            options = storage_options(self.minio)
            try:
                table = DeltaTable(self.uri, storage_options=options)
            except TableNotFoundError:
                table = DeltaTable.create(
                    self.uri,
                    schema=SCHEMA,
                    mode="ignore",
                    name=self.name,
                    description=f"Pictures of the bucket {self.source_bucket}",
                    configuration=TABLE_CONFIGURATION,
                    storage_options=options,
                )
        return TableSnapshot(self, table)

    @contextmanager
    def errors(self) -> Generator[None]:
        """Turn deltalake's errors into those of this package.

        Raises:
            ConflictError: another commit came first.
            TransientError: the server is unreachable, or the table can't be read.
        """
        try:
            yield
        except CommitFailedError as error:
            raise ConflictError from error
        except (DeltaError, OSError) as error:
            msg = f"the catalogue {self.uri} at {self.minio.endpoint}: {one_line(str(error))}"
            raise TransientError(msg) from error


@dataclass(frozen=True)
class TableSnapshot:
    """One version of the table."""

    catalog: CatalogTable
    table: DeltaTable

    def rows(self, keys: Sequence[str]) -> dict[str, Row]:
        """Return the rows of these keys.

        Raises:
            TransientError: the server is unreachable.
        """
        if not keys:
            return {}
        listed = ", ".join(map(_quoted, keys))
        query = f"select * from catalog where {self._of_bucket} and key in ({listed})"  # noqa: S608
        analyses = self.catalog.analyses
        return {row["key"]: Row.of(row, analyses) for row in self._select(query)}

    def states(self, prefix: str = "", start_after: str = "") -> Iterator[RowState]:
        """Return part of each row in the order of the keys' UTF-8 bytes, as a stream.

        Args:
            prefix: only keys that start with it.
            start_after: only keys after this one.

        Raises:
            TransientError: the server is unreachable.
        """
        columns = ", ".join(RowState._fields)
        query = (
            f"select {columns} from catalog where {self._of_bucket} "  # noqa: S608
            f"and key > {_quoted(start_after)} and starts_with(key, {_quoted(prefix)}) order by key"
        )
        for row in self._select(query):
            yield RowState(**row)

    def merge(self, rows: Sequence[Row], *, replaces: bool) -> int:
        """Replace rows by key and add new ones in one commit.

        Args:
            rows: the rows.
            replaces: whether this version has rows of any of their keys. If not, no row is read.

        Returns:
            The version that it made.

        Raises:
            ConflictError: this version is not the newest one any more.
            TransientError: the server is unreachable.
            UserError: the table has a column of an analysis with another type.
        """
        # Delta would also commit after others' inserts, which could be of the same keys.
        commit = CommitProperties(max_commit_retries=0)
        added = missing_columns(self.table.schema(), self.catalog.analyses, self.catalog.uri)
        with self.catalog.errors():
            if added:
                fields = Schema.from_arrow(added).fields
                self.table.alter.add_columns(fields, commit_properties=commit)
            batches = Table.from_batches([batch_of(rows, self.table.schema().to_arrow())])
            if not replaces:
                write_deltalake(self.table, batches, mode="append", commit_properties=commit)
                return self.table.version()
            self.table.merge(
                batches,
                predicate="t.bucket = s.bucket and t.key = s.key",
                source_alias="s",
                target_alias="t",
                commit_properties=commit,
            ).when_matched_update_all().when_not_matched_insert_all().execute()
        return self.table.version()

    def maintain(self, now: dt.datetime) -> dict[str, int]:
        """Forget objects that are long gone, join small files, and delete files that are unused.

        Returns:
            The table's version and its number of files, and how many were joined and deleted.

        Raises:
            ConflictError: a run has committed meanwhile.
            TransientError: the server is unreachable.
        """
        before = (now - dt.timedelta(days=GONE_DAYS)).isoformat()
        # One at a time, so that none of them is tried again on top of a run's commit.
        commit = CommitProperties(max_commit_retries=0)
        with self.catalog.errors():
            self.table.delete(
                f"status = 'missing' and recorded < '{before}'", commit_properties=commit
            )
            done = self.table.optimize.compact(target_size=FILE_BYTES, commit_properties=commit)
            self.table.create_checkpoint()
            self.table.cleanup_metadata()
            deleted = self.table.vacuum(dry_run=False)
        return {
            "version": self.table.version(),
            "files": len(self.table.file_uris()),
            "files joined": int(done["numFilesRemoved"]),
            "files deleted": len(deleted),
        }

    @property
    def _of_bucket(self) -> str:
        return f"bucket = {_quoted(self.catalog.source_bucket)}"

    def _select(self, query: str) -> Iterator[Mapping[str, Any]]:
        with self.catalog.errors():
            found = QueryBuilder().register("catalog", self.table).execute(query)
            for batch in found:
                names = batch.schema.names
                columns = [column.to_pylist() for column in batch.columns]
                for values in zip(*columns, strict=True):
                    yield dict(zip(names, values, strict=True))


def storage_options(minio: MinioResource) -> dict[str, str]:
    """Return what deltalake needs to know of an S3 server."""
    return {
        "aws_endpoint": minio.endpoint,
        "aws_access_key_id": minio.access_key,
        "aws_secret_access_key": minio.secret_key,
        "aws_region": minio.region,
        "aws_virtual_hosted_style_request": "false",
        "aws_conditional_put": "etag",
        "allow_http": str(minio.endpoint.startswith("http:")).lower(),
        "allow_invalid_certificates": str(minio.tls_skip_verify).lower(),
        "connect_timeout": f"{CONNECT_TIMEOUT_S}s",
        "timeout": f"{READ_TIMEOUT_S}s",
    }


@contextmanager
def _trusting(ca_file: str | None) -> Generator[None]:
    """Let clients that are built meanwhile trust a CA, which deltalake has no option for.

    A process reads its trusted CAs once, when it builds the first client.
    """
    if ca_file is None:
        yield
        return
    with _opening:
        before = os.environ.get("SSL_CERT_FILE")
        os.environ["SSL_CERT_FILE"] = ca_file
        try:
            yield
        finally:
            del os.environ["SSL_CERT_FILE"]
            if before is not None:
                os.environ["SSL_CERT_FILE"] = before


def _quoted(text: str) -> str:
    """Return an SQL literal: a quote is doubled, and no other character is special."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"
