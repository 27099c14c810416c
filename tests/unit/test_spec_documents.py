"""Spec files that are none: no error shows what is in them, and none takes long."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resize_pipeline.errors import UserError
from resize_pipeline.renditions.document import MERGED_MAX, NUMBER_MAX, read_document
from resize_pipeline.renditions.file import load_renditions

WORD = "hunter2hunter2"
# What YAML gives a meaning to.
MARKS = ["*", "&", "!", "!!", "%", "@", "`", "|", ">", "?", "- ", "<<: *", "'", '"', "{", "[", ": "]
FILES = {
    "shadow": f"root:*:19000:0:99999:7:::\nme:{WORD}:19000:0:99999:7:::\n",
    "locked shadow": f"daemon:!{WORD}:1::::\n",
    "dotenv": f"MINIO_ROOT_PASSWORD={WORD}\nKAFKA_SASL_PASSWORD='{WORD}'\n",
    "word": WORD,
    "mapping": f"password: {WORD}\n",
    "mapping beside renditions": f"renditions: {{a: {{}}}}\n{WORD}: {WORD}\n",
    "key that is given twice": f"{WORD}: 1\n{WORD}: 2\n",
    "nested key that is given twice": f"a: {{{WORD}: 1, {WORD}: 2}}\n",
    "list": f"[{WORD}]\n",
    "JSON": f'{{"auths": {{"registry": {{"auth": "{WORD}"}}}}}}',
    "JSON that is cut off": f'{{"secret": "{WORD}", "next',
    "PEM": f"-----BEGIN PRIVATE KEY-----\n{WORD}\n-----END PRIVATE KEY-----\n",
    "alias": f"renditions: *{WORD}\n",
    "anchor": f"a: &{WORD} 1\nb: &{WORD} 2\n",
    "tag": f"!{WORD} x\n",
    "tag handle": f"!{WORD}!x y\n",
    "verbatim tag": f"!<{WORD}> x\n",
    "directive": f"%{WORD} x\n---\n",
    "escape": f'"\\{WORD}"',
    "two documents": f"{WORD}\n---\n{WORD}\n",
    "date": f"2024-99-99 {WORD}\n",
    "binary": f"{WORD}\0{WORD}",
    "deep": "[" * 20_000 + WORD,
    "tabs": f"a:\n\t{WORD}: 1\n",
}


def refusal(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        load_renditions(path, "images")
    message = str(refused.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


@pytest.mark.parametrize("name", FILES)
def test_what_is_in_a_file_that_is_no_spec_is_not_shown(tmp_path: Path, name: str) -> None:
    message = refusal(tmp_path / "file", FILES[name])
    assert "hunter2" not in message
    assert str(tmp_path / "file") in message


@given(st.lists(st.sampled_from([*MARKS, WORD, f"{WORD}: ", "\n", "  ", "a: "]), max_size=12))
def test_whatever_its_form(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "file"
    path.write_text("".join(parts))
    with pytest.raises(UserError) as refused:
        read_document(path)
    assert "hunter2" not in str(refused.value)


def test_resize_shows_nothing_of_it_either(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"MINIO_ROOT_PASSWORD={WORD}\n")
    (tmp_path / "a.png").write_bytes(b"")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "resize_pipeline", "resize", "a.png"),
            *("--out", "out", "--spec", ".env"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "renditions" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


def test_a_mistake_in_a_spec_is_still_shown(tmp_path: Path) -> None:
    text = "renditions:\n  large: {width: 10, height: 10, bucket: images, fit: 9x}\n"
    assert "'9x'" in refusal(tmp_path / "file", text)
    assert "'\\t'" in refusal(tmp_path / "file", "renditions:\n\tlarge: {}\n")


FIELDS = "renditions:\n  a: {width: %s, height: 9, bucket: bbb}\n"


@pytest.mark.parametrize(
    "number", ["0x" + "f" * 8000, ":".join(["1"] * 60_000), "1" * 5000, "1" * (NUMBER_MAX + 1)]
)
def test_long_numbers_are_not_computed(tmp_path: Path, number: str) -> None:
    assert f"line 2: a number of more than {NUMBER_MAX}" in refusal(tmp_path / "f", FIELDS % number)


def test_nested_merge_keys_are_bounded(tmp_path: Path) -> None:
    lines = ["  a0: &a0 {x: 1}"]
    lines += [f"  a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    text = "\n".join(["renditions:", *lines])
    assert f"more than {MERGED_MAX} entries" in refusal(tmp_path / "file", text)


def test_merge_keys_work(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(
        "renditions:\n  a: &a {width: 9, height: 9, bucket: bbb, prefix: a/}\n"
        "  b: {<<: *a, prefix: b/}\n"
    )
    assert [one.prefix for one in load_renditions(path, "images")] == ["a/", "b/"]
