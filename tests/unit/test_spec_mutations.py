"""Whatever a spec file holds, it is a spec or one printable line; both are bounded."""

import random
import re
from pathlib import Path

import pytest

from resize_pipeline.errors import UserError
from resize_pipeline.renditions.file import load_renditions
from tests.unit.test_imports import REPOSITORY

MUTATIONS = 2000
MESSAGE_MAX = 20_000
SPECS = (
    (REPOSITORY / "renditions.yaml").read_bytes(),
    b"""renditions:
  a: &x {width: 300, height: 0x20, bucket: bbb, prefix: p/, quality: 80, format: webp}
  b:
    <<: *x
    bucket: ccc
  c: {<<: [*x, {fit: inside}], bucket: ddd, transform: "a.b:c", version: 1}
""",
)
TOKENS = [
    *(f"!!{tag} ".encode() for tag in ("bool", "int", "float", "str", "null", "map", "seq", "set")),
    *(f"!!{tag} ".encode() for tag in ("omap", "pairs", "binary", "timestamp", "python/name:os")),
    *(b"&a ", b"*a", b"*x", b"<<: ", b"? ", b"- ", b"[", b"]", b"{", b"}", b"'", b'"', b"|", b">"),
    *(b"2026-02-30", b"0001-01-01T00:00:00+99:99", b"1:99:99", b".nan", b"1e999", b"~", b"="),
    *(b"9" * 39, b"_" * 39, b"x" * 3000, b"0b" + b"1" * 50, b"---\n", b"...\n", b"%YAML 9.9\n"),
    *(b"\x1b", b"\xc2\x9b", b"\xe2\x80\xae", b"\xef\xbb\xbf", b"\xff", b"\0", b"\r", b"\t", b"#"),
    *(b'"\\ud800"', b'"\\x1b"', b"!<tag:yaml.org,2002:merge> ", b"@", b"`"),
]


def mutated(chance: random.Random) -> bytes:
    text = bytearray(chance.choice(SPECS))
    for _ in range(chance.randint(1, 8)):
        place = chance.randrange(len(text) + 1)
        match chance.randrange(4):
            case 0 | 1:
                text[place:place] = chance.choice(TOKENS)
            case 2:
                del text[place : place + chance.randint(1, 20)]
            case _:
                text[place : place + 1] = bytes([chance.randrange(256)])
    return bytes(text)


def outcome(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    try:
        load_renditions(path, "images")
    except UserError as error:
        return str(error)
    return ""


def test_mutations(tmp_path: Path) -> None:
    chance = random.Random(15)  # noqa: S311
    for _ in range(MUTATIONS):
        message = outcome(tmp_path / "spec.yaml", content := mutated(chance))
        assert message.isprintable() or not message, content
        assert len(message) < MESSAGE_MAX, content


FIELDS = "width: 9, height: 9, bucket: bbb"


@pytest.mark.parametrize(
    "content",
    [
        "renditions:\n" + "".join(f"  a{i}: {{{FIELDS}}}\n" for i in range(4000)),
        "renditions:\n" + "".join(f"  a{i}: 1\n" for i in range(20_000)),
        "renditions: {a: {" + ",".join(f"f{i}: 1" for i in range(20_000)) + "}}",
        "renditions: {" + "x" * 200_000 + ": 1}",
        "renditions: {a: {" + "x" * 200_000 + ": 1}}",
        "renditions: !!set {a}",
        "!!set {renditions: {a: 1}}",
        "!!omap [renditions: {a: 1}]",
        "!!binary renditions: {a: 1}",
        "renditions: {a: {width: !!bool 9}}",
        "renditions: {a: {width: !!timestamp 9}}",
        "renditions: {a: {width: !!int ''}}",
        'renditions: {a: {"wid\\u202eth": 1}}',
    ],
    ids=lambda content: re.sub(r"\W+", " ", content[:40]),
)
def test_what_is_large_or_tagged(content: str, tmp_path: Path) -> None:
    message = outcome(tmp_path / "spec.yaml", content.encode())
    assert message.isprintable()
    assert 0 < len(message) < MESSAGE_MAX
