"""Batches of every codec decode as kafka-python decodes them, within bounds."""

import gzip
import struct
from collections.abc import Callable

import lz4.frame
import pytest
import snappy
import zstandard
from kafka import codec
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecordsBuilder

from resize_pipeline.kafka import codecs
from resize_pipeline.kafka.codecs import (
    BATCH_MAX_BYTES,
    DECODERS,
    HEADERS_MAX,
    POLL_MAX_BYTES,
    FullPollError,
    OversizedBatchError,
    UndecodableBatchError,
    bound_codecs,
    gunzip,
    poll_budget,
    unlz4,
    unsnappy,
    unzstd,
)
from resize_pipeline.kafka.reading import poll

bound_codecs()

CODECS = {
    "gzip": (codec.gzip_encode, gunzip),
    "snappy": (codec.snappy_encode, unsnappy),
    "raw snappy": (snappy.compress, unsnappy),
    "lz4": (codec.lz4_encode, unlz4),
    "zstd": (codec.zstd_encode, unzstd),
    "zstd without its size": (
        lambda data: zstandard.ZstdCompressor(write_content_size=False).compress(data),
        unzstd,
    ),
}
Codec = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]
both = pytest.mark.parametrize("encode_and_decode", CODECS.values(), ids=CODECS)
TEXT = b'{"EventName": "s3:ObjectCreated:Put"}' * 5_000


@both
@pytest.mark.parametrize("data", [b"", b"x", TEXT, b"\0" * BATCH_MAX_BYTES])
def test_data_comes_back(encode_and_decode: Codec, data: bytes) -> None:
    encode, decode = encode_and_decode
    assert decode(encode(data)) == data


@both
def test_data_above_the_bound_is_refused(encode_and_decode: Codec) -> None:
    encode, decode = encode_and_decode
    with pytest.raises(OversizedBatchError, match=str(BATCH_MAX_BYTES)):
        decode(encode(b"\0" * (BATCH_MAX_BYTES + 1)))


@both
def test_truncated_data_is_refused(encode_and_decode: Codec) -> None:
    encode, decode = encode_and_decode
    whole = encode(TEXT)
    for size in (1, 20, len(whole) // 2, len(whole) - 1):
        try:
            assert decode(whole[:size]) != TEXT
        except codecs.BROKEN:
            continue


def test_several_members_and_frames_are_one_batch() -> None:
    assert gunzip(gzip.compress(b"one") + gzip.compress(b"two")) == b"onetwo"
    assert unlz4(lz4.frame.compress(b"one") + lz4.frame.compress(b"two")) == b"onetwo"
    zstd = zstandard.ZstdCompressor()
    assert unzstd(zstd.compress(b"one") + zstd.compress(b"two")) == b"onetwo"


@pytest.mark.parametrize("member", [gzip.compress(bytes(2**20)), lz4.frame.compress(bytes(2**20))])
def test_many_members_count_together(member: bytes) -> None:
    decode = gunzip if member.startswith(b"\x1f\x8b") else unlz4
    with pytest.raises(OversizedBatchError):
        decode(member * 9)


def test_a_snappy_block_that_claims_gigabytes_is_not_allocated() -> None:
    claim = b"\xff\xff\xff\xff\x0f" + b"\0" * 10
    with pytest.raises(OversizedBatchError):
        unsnappy(claim)
    header = codecs.XERIAL_MAGIC + struct.pack("!ii", 1, 1)
    with pytest.raises(OversizedBatchError):
        unsnappy(header + struct.pack("!i", len(claim)) + claim)


@pytest.mark.parametrize("size", [-1, 2**31 - 1])
def test_a_snappy_block_of_a_wrong_size_is_broken(size: int) -> None:
    header = codecs.XERIAL_MAGIC + struct.pack("!ii", 1, 1)
    with pytest.raises(codecs.BROKEN):
        unsnappy(header + struct.pack("!i", size) + b"xxxx")


def batch(compression: int, *values: bytes, base_offset: int = 0) -> bytes:
    builder = MemoryRecordsBuilder(magic=2, compression_type=compression, batch_size=2**30)
    for value in values:
        builder.append(timestamp=0, key=None, value=value, headers=[])
    builder.close()
    data = bytearray(builder.buffer())
    data[:8] = struct.pack(">q", base_offset)
    return bytes(data)


def values_of(data: bytes) -> list[bytes]:
    records = MemoryRecords(data)
    found = []
    while (one := records.next_batch()) is not None:
        found += [record.value for record in one]
    return found


@pytest.mark.parametrize("compression", [0, *DECODERS])
def test_records_of_a_batch_are_read(compression: int) -> None:
    assert values_of(batch(compression, b"one", b"two")) == [b"one", b"two"]


@pytest.mark.parametrize("compression", DECODERS)
def test_a_batch_that_is_too_large_names_its_offsets(compression: int) -> None:
    data = batch(compression, bytes(BATCH_MAX_BYTES), b"x", base_offset=70)
    with pytest.raises(UndecodableBatchError, match="once it is decompressed") as caught:
        values_of(data)
    assert caught.value.end == 72


def test_a_broken_record_names_the_offsets_from_there() -> None:
    data = bytearray(batch(0, b"one", b"two", b"three", base_offset=5))
    at = data.index(b"two")
    data[at - 1] = 0x7F
    with pytest.raises(UndecodableBatchError) as caught:
        values_of(bytes(data))
    assert caught.value.end == 8


def test_a_poll_takes_no_more_than_its_budget() -> None:
    gzipped = batch(DefaultRecordBatchBuilder.CODEC_GZIP, bytes(BATCH_MAX_BYTES - 100))
    with poll_budget():
        assert len(values_of(gzipped * (POLL_MAX_BYTES // BATCH_MAX_BYTES))) == 2
    with poll_budget(), pytest.raises(FullPollError):
        values_of(gzipped * 3)
    assert len(values_of(gzipped * 3)) == 3


def test_a_legacy_batch_that_is_too_large_is_undecodable_too() -> None:
    """Brokers before 4.0 still return the formats without an end of the batch in the error."""
    builder = MemoryRecordsBuilder(magic=1, compression_type=1, batch_size=2**30)
    builder.append(timestamp=0, key=None, value=bytes(BATCH_MAX_BYTES + 1), headers=[])
    builder.close()

    class Consumer:
        def poll(self, **_: object) -> object:
            return values_of(bytes(builder.buffer()))

    with pytest.raises(UndecodableBatchError, match="once it is decompressed") as caught:
        poll(Consumer())
    assert caught.value.end is None


def with_headers(*counts: int) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 2**31 - 1)
    for index, count in enumerate(counts):
        headers = [(f"name-{number}", b"%d" % number) for number in range(count)]
        assert builder.append(index, index, b"key", b"%d" % index, headers)
    return bytes(builder.build())


def records_of(data: bytes) -> list:
    batch = MemoryRecords(data).next_batch()
    assert batch
    return list(batch)


def test_only_the_first_headers_of_a_record_are_decoded() -> None:
    """8 MiB of empty headers took 32 times that memory."""
    counts = (0, 1, HEADERS_MAX, HEADERS_MAX + 1, 10_000, 2)
    found = records_of(with_headers(*counts))
    assert [len(one.headers) for one in found] == [min(one, HEADERS_MAX) for one in counts]
    assert [(one.key, one.value, one.offset) for one in found] == [
        (b"key", b"%d" % index, index) for index in range(len(counts))
    ]
    assert found[2].headers[-1] == (f"name-{HEADERS_MAX - 1}", b"%d" % (HEADERS_MAX - 1))


@pytest.mark.parametrize("kept", range(62, 90))
def test_a_record_that_claims_more_than_it_has_is_broken(kept: int) -> None:
    data = bytearray(with_headers(HEADERS_MAX + 5))[:kept]
    data[8:12] = struct.pack(">i", len(data) - 12)
    with pytest.raises(UndecodableBatchError):
        records_of(bytes(data))
