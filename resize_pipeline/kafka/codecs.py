"""Bounded decompression for kafka-python, whose codecs have no limit.

kafka-python 3.0 decompresses a batch whole, whatever it expands to: a batch of 52 kB took 3.8 GB,
and the broker accepts 1 MiB. It offers no hook, so this file replaces the functions that its
record classes call by ones with the same results and a limit. An upgrade of kafka-python has to be
checked against `kafka/codec.py`, `kafka/record/default_records.py` and `legacy_records.py`.
"""

# kafka-python has no types for what this file replaces.
# pyright: reportAttributeAccessIssue=false

import gzip
import io
import struct
import threading
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from kafka import codec
from kafka import errors as kafka_errors
from kafka.record import legacy_records, memory_records
from kafka.record.default_records import ControlRecord, DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint

BATCH_MAX_BYTES = 8 * 2**20
"""Most bytes that a batch may have once it is decompressed.

Eight times what a broker accepts compressed by default (`message.max.bytes`, 1 MiB). Java's and
MinIO's producers compare the uncompressed size with their own limit of 1 MiB.
"""
POLL_MAX_BYTES = 2 * BATCH_MAX_BYTES
"""Most bytes that the batches of one poll may have together once they are decompressed."""

HEADERS_MAX = 32
"""Most headers of a record that are decoded; a dead letter has ten.

An empty header takes 2 bytes of a batch and 64 bytes of memory.
"""

XERIAL_MAGIC = b"\x82SNAPPY\x00"
"""Start of snappy data in blocks, as Java's producer writes them (xerial's snappy-java)."""
XERIAL_HEADER_BYTES = 16

UNWRAPPED = (
    kafka_errors.CorruptRecordError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
)
"""What a poll still raises by itself: for a wrong checksum, and for batches in older formats."""
BROKEN = (
    *UNWRAPPED,
    # What lz4 raises for a broken frame.
    RuntimeError,
    # Records with a broken structure, and batches that are too large.
    ValueError,
    IndexError,
    *((codec.zstd.ZstdError,) if codec.zstd else ()),
    *((codec.snappy.UncompressError,) if codec.snappy else ()),
)
"""What decoding a batch raises when a client wrote it wrongly.

Kafka 4.3 checks neither what follows the compressed data nor header keys that are not UTF-8.
"""


class OversizedBatchError(ValueError):
    """A batch is larger than `BATCH_MAX_BYTES` once it is decompressed."""


class FullPollError(Exception):
    """The batches of this poll together exceed `POLL_MAX_BYTES`: poll again with a new consumer."""


class UndecodableBatchError(Exception):
    """The rest of a batch can't be decoded.

    Attributes:
        end: offset after the batch; None if it is not known.
    """

    def __init__(self, error: Exception, end: int | None = None) -> None:
        super().__init__(f"can't be decoded: {type(error).__name__}: {error}")
        self.end = end


class _Budget(threading.local):
    left: int | None = None


_budget = _Budget()


@contextmanager
def poll_budget() -> Generator[None]:
    """Bound the decompressed bytes of one poll of this thread to `POLL_MAX_BYTES`."""
    _budget.left = POLL_MAX_BYTES
    try:
        yield
    finally:
        _budget.left = None


def gunzip(data: Any) -> bytes:
    """Decompress gzip data of one member or several.

    Raises:
        OversizedBatchError: it is too large.
        zlib.error: it is broken.
        EOFError: it is truncated.
    """
    out = bytearray()
    left = bytes(data)
    while left:
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        out += member.decompress(left, BATCH_MAX_BYTES + 1 - len(out))
        _check(len(out))
        if not member.eof:
            msg = "the gzip data ends too early"
            raise EOFError(msg)
        left = member.unused_data.lstrip(b"\0")
    return bytes(out)


def unsnappy(data: bytes) -> bytes:
    """Decompress snappy data, raw or in xerial's blocks.

    Raises:
        OversizedBatchError: it is too large.
        snappy.UncompressError: it is broken.
    """
    if not data.startswith(XERIAL_MAGIC) or len(data) < XERIAL_HEADER_BYTES:
        return _unsnappy_block(data, BATCH_MAX_BYTES)
    out = bytearray()
    position = XERIAL_HEADER_BYTES
    while position < len(data):
        (size,) = struct.unpack_from("!i", data, position)
        position += 4
        if size < 0 or position + size > len(data):
            msg = f"a snappy block of {size} bytes, {len(data) - position} are left"
            raise kafka_errors.CorruptRecordError(msg)
        out += _unsnappy_block(data[position : position + size], BATCH_MAX_BYTES - len(out))
        position += size
    return bytes(out)


def unlz4(data: bytes) -> bytes:
    """Decompress LZ4 frames.

    Raises:
        OversizedBatchError: they are too large.
        RuntimeError: they are broken.
        EOFError: the last one is truncated.
    """
    out = bytearray()
    left = data
    while left:
        frame = codec.lz4.LZ4FrameDecompressor()
        out += frame.decompress(left, max_length=BATCH_MAX_BYTES + 1 - len(out))
        _check(len(out))
        if not frame.eof:
            msg = "the LZ4 frame ends too early"
            raise EOFError(msg)
        left = frame.unused_data or b""
    return bytes(out)


def unzstd(data: bytes) -> bytes:
    """Decompress Zstandard frames.

    Raises:
        OversizedBatchError: they are too large.
        zstandard.ZstdError: they are broken, or need a window above `BATCH_MAX_BYTES`.
    """
    decompressor = codec.zstd.ZstdDecompressor(max_window_size=BATCH_MAX_BYTES)
    with decompressor.stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
        out = reader.read(BATCH_MAX_BYTES + 1)
    _check(len(out))
    return out


def _unsnappy_block(data: bytes, most: int) -> bytes:
    # A block starts with its decompressed size as a varint, and the decompressor allocates that
    # (google/snappy, format_description.txt).
    size = 0
    for index, byte in enumerate(data[:5]):
        size |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint has no continuation bit
            break
    if size > most:
        _check(BATCH_MAX_BYTES + 1)
    return codec.snappy.decompress(data)


def _check(size: int) -> None:
    if size > BATCH_MAX_BYTES:
        msg = f"a batch of more than {BATCH_MAX_BYTES} bytes once it is decompressed"
        raise OversizedBatchError(msg)


DECODERS: dict[int, Callable[[Any], bytes]] = {
    DefaultRecordBatch.CODEC_GZIP: gunzip,
    DefaultRecordBatch.CODEC_SNAPPY: unsnappy,
    DefaultRecordBatch.CODEC_LZ4: unlz4,
    DefaultRecordBatch.CODEC_ZSTD: unzstd,
}


class BoundedRecordBatch(DefaultRecordBatch):
    """A batch with a bound that says where it ends when it can't be decoded."""

    __slots__ = ()

    def _maybe_uncompress(self) -> None:
        decode = DECODERS.get(self.compression_type)
        if self._decompressed or decode is None:
            super()._maybe_uncompress()
            return
        self._assert_has_codec(self.compression_type)
        try:
            data = decode(bytes(memoryview(self._buffer)[self._pos :]))
        except BROKEN as error:
            raise UndecodableBatchError(error, self.next_offset) from error
        _charge(len(data))
        self._buffer = bytearray(data)
        self._pos = 0
        self._decompressed = True

    def _read_msg(self, decode_varint: Any = decode_varint) -> Any:
        """Decode a record as kafka-python does, but at most `HEADERS_MAX` of its headers."""
        buffer = self._buffer
        length, start = decode_varint(buffer, self._pos)
        end = start + length
        # Attributes, which are always 0.
        _, pos = decode_varint(buffer, start)
        timestamp_delta, pos = decode_varint(buffer, pos)
        offset_delta, pos = decode_varint(buffer, pos)
        key, pos = _field(buffer, pos)
        value, pos = _field(buffer, pos)
        count, pos = decode_varint(buffer, pos)
        headers: list[tuple[str, bytes | None]] = []
        for _ in range(min(count, HEADERS_MAX)):
            name, pos = _field(buffer, pos)
            content, pos = _field(buffer, pos)
            if name is None:
                msg = "a header without a key"
                raise kafka_errors.CorruptRecordError(msg)
            headers.append((name.decode(), content))
        if count > HEADERS_MAX and pos <= end:
            pos = end
        if count < 0 or pos != end or end > len(buffer):
            msg = f"a record of {length} bytes and {count} headers ends at {pos - start}"
            raise kafka_errors.CorruptRecordError(msg)
        self._pos = pos
        is_log_time = self.timestamp_type == self.LOG_APPEND_TIME
        timestamp = self.max_timestamp if is_log_time else self.first_timestamp + timestamp_delta
        kind = ControlRecord if self.is_control_batch else DefaultRecord
        offset = self.base_offset + offset_delta
        return kind(length, offset, timestamp, self.timestamp_type, key, value, headers)

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except BROKEN as error:
            raise UndecodableBatchError(error, self.next_offset) from error


def _field(buffer: bytearray, pos: int) -> tuple[bytes | None, int]:
    size, pos = decode_varint(buffer, pos)
    if size < 0:
        return None, pos
    return bytes(buffer[pos : pos + size]), pos + size


def _charge(size: int) -> None:
    left = _budget.left
    if left is None:
        return
    # The first batch always fits, so that each poll makes progress.
    if size > left < POLL_MAX_BYTES:
        raise FullPollError
    _budget.left = left - size


def bound_codecs() -> None:
    """Replace kafka-python's codecs in this process."""
    memory_records.DefaultRecordBatch = BoundedRecordBatch
    # Batches in the formats before Kafka 0.11, which brokers before 4.0 still return.
    for module in (legacy_records, codec):
        module.gzip_decode = gunzip
        module.snappy_decode = unsnappy
        module.lz4_decode = unlz4
