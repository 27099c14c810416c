"""What an error about a setting or a spec says is done to the letter, until nothing is wrong."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from resize_pipeline.environment import load_settings
from resize_pipeline.errors import UserError
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.settings import Settings

STEPS_MAX = 3
WRONG = ("!x y", "-5", "0", "yes please", "2099-01-01", "99999999999")

# What an operator writes who reads these words, and nothing else.
READINGS = (
    (r"such as (\d+ \* \* \* \*)", r"\1"),
    (r"such as ([^\s,;]+[^\s,;:])", r"\1"),
    (r"as in ([^\s:]+)", r"\1"),
    (r"must be true or false", "true"),
    (r"must be today, ([\d-]+)", r"\1"),
    (r"is not '([^']+)'", r"\1"),
    (r"greater than or equal to (-?\d+)", r"\1"),
    (r"less than or equal to (\d+)", r"\1"),
    (r"greater than 0", "1"),
    (r"a (whole )?number", "5000000000"),
    (r"at least \d+ characters", "as-long-as-it-says"),
    (r"form (http://HOST:PORT)", "http://host:80"),
    (r"form HOST:PORT,HOST:PORT", "one:80,two:80"),
    (r"form https://HOST/PATH", "https://host/path"),
    (r"HOST or HOST:PORT", "host:80"),
    (r"team:NAME", "team:name"),
    (r"lower-case letters", "abc"),
    (r"letters, digits", "a"),
    (r"host name", "host"),
    (r"absolute path", "/a"),
    (r"set both or neither", ""),
    (r"or unset it", ""),
)


def reading(said: str) -> str:
    for words, value in READINGS:
        found = re.search(words, said)
        if found:
            return found.expand(value)
    msg = f"no remedy in: {said}"
    raise AssertionError(msg)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_is_right_once_the_line_is_followed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = name.upper()
    for wrong in WRONG:
        value = wrong
        for _ in range(STEPS_MAX):
            monkeypatch.setenv(variable, value)
            try:
                load_settings(warn=False)
            except UserError as error:
                value = reading(str(error).partition(f"{variable}")[2])
            else:
                break
        else:
            pytest.fail(f"{variable}={wrong}: the line never helps")


TOGETHER = (
    (
        {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_USERNAME": "u"},
        "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD: set both",
        {"KAFKA_SASL_PASSWORD": "p"},
    ),
    (
        {"NOTIFY_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"},
        "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD: set both",
        {"KAFKA_SASL_USERNAME": "u", "KAFKA_SASL_PASSWORD": "p"},
    ),
    ({"KAFKA_SSL_KEYFILE": "k"}, "set both or neither", {"KAFKA_SSL_CERTFILE": "c"}),
    ({"KAFKA_SSL_KEYFILE": "k"}, "set both or neither", {"KAFKA_SSL_KEYFILE": ""}),
    (
        {"NOTIFY_KAFKA_CLIENT_TLS_KEY": "k"},
        "set both or neither",
        {"NOTIFY_KAFKA_CLIENT_TLS_CERT": "c"},
    ),
    (
        {"MINIO_CA_FILE": "c", "MINIO_TLS_SKIP_VERIFY": "true"},
        "set only one of them",
        {"MINIO_TLS_SKIP_VERIFY": ""},
    ),
    (
        {"MINIO_CA_FILE": "c", "MINIO_TLS_SKIP_VERIFY": "true"},
        "set only one of them",
        {"MINIO_CA_FILE": ""},
    ),
    ({"UI_PORT": "9092"}, "must be different ports", {"UI_PORT": "3000"}),
)


@pytest.mark.parametrize(("wrong", "said", "followed"), TOGETHER)
def test_settings_that_do_not_go_together_do_so_once_the_line_is_followed(
    wrong: dict[str, str], said: str, followed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=said):
        load_settings(warn=False)
    for name, value in followed.items():
        monkeypatch.setenv(name, value)
    load_settings(warn=False)


def test_a_dotenv_that_is_not_text_is_right_once_it_is_saved_as_utf_8() -> None:
    text = "SOURCE_BUCKET=images # Bücher\n"
    Path(".env").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="save it as UTF-8"):
        load_settings(warn=False)
    Path(".env").write_bytes(text.encode())
    load_settings(warn=False)


BOX = {"width": 8, "height": 8, "bucket": "small"}
"""A spec with nothing wrong."""


def said_of(path: Path, fields: dict[str, Any], others: dict[str, Any]) -> str | None:
    path.write_text(yaml.safe_dump({"renditions": {"small": fields, **others}}))
    try:
        load_renditions(path, "images")
    except UserError as error:
        return str(error)
    return None


CHANGES = (
    # Words of the line, and what they ask for; a value of None removes the field.
    (r"(\w+): '?[^ ]+'? must be removed", None),
    (r"(fit) set to (cover|contain)", 2),
    (r"(format) set to one of (?:\w+, )*(\w+)$", 2),
)


@pytest.mark.parametrize(
    "wrong",
    [
        {"position": "north"},
        {"format": "png", "quality": 5},
        {"format": "jpeg", "lossless": True},
        {"format": "webp", "progressive": True},
        {"format": "gif", "effort": 3},
        {"format": "png", "background": "#000000"},
        {"version": 3},
        {"transform": "a.b:c", "version": 1, "metadata": ["profile"]},
    ],
)
def test_fields_that_do_not_go_together_do_so_whichever_remedy_is_followed(
    wrong: dict[str, Any], tmp_path: Path
) -> None:
    fields = BOX | wrong
    said = said_of(tmp_path / "r.yaml", fields, {})
    assert said
    followed = 0
    for words, group in CHANGES:
        for found in re.finditer(words, said):
            value = None if group is None else found[group]
            changed = {**fields, found[1]: value}
            kept = {name: one for name, one in changed.items() if one is not None}
            assert said_of(tmp_path / "r.yaml", kept, {}) is None, f"{said}: {kept}"
            followed += 1
    assert followed


@pytest.mark.parametrize(
    ("wrong", "said", "followed"),
    [
        ({"width": 0}, "greater than or equal to 1", {"width": 1}),
        ({"width": 16384}, "less than or equal to 16383", {"width": 16383}),
        ({"width": "8"}, "must be a valid integer", {"width": 8}),
        ({"enlarge": "yes"}, "must be a valid boolean", {"enlarge": True}),
        ({"fit": "box"}, "must be 'inside'", {"fit": "inside"}),
        ({"format": "bmp"}, "must be 'same'", {"format": "same"}),
        ({"background": "black"}, "'#rrggbb'", {"fit": "contain", "background": "#000000"}),
        ({"metadata": ["all"]}, "must be strip", {"metadata": "strip"}),
        (
            {"metadata": ["all"]},
            "a list of what to keep, from copyright",
            {"metadata": ["copyright"]},
        ),
        ({"fit": "cover", "position": "top"}, "one of center", {"position": "center"}),
        ({"fit": "cover", "position": "top"}, "or X,Y from 0,0 to 1,1", {"position": "0.5,0"}),
        ({"cache_control": "ä"}, "printable ASCII", {"cache_control": "no-store"}),
        ({"prefix": "/a"}, "without a leading slash", {"prefix": "a/"}),
        ({"transform": "steps", "version": 1}, "package.module:function", {"transform": "a.b:c"}),
        ({"transform": "a.b:c"}, "version: missing, must be set", {"version": 1}),
        ({"bucket": "Small"}, "lower-case letters", {"bucket": "small"}),
        ({"bucket": "images"}, "choose another bucket", {"bucket": "small"}),
        ({"bucket": None}, "must be a valid string", {"bucket": "small"}),
    ],
)
def test_a_field_is_right_once_the_line_is_followed(
    wrong: dict[str, Any], said: str, followed: dict[str, Any], tmp_path: Path
) -> None:
    fields = BOX | wrong
    assert said in (said_of(tmp_path / "r.yaml", fields, {}) or "")
    assert said_of(tmp_path / "r.yaml", fields | followed, {}) is None


def test_a_misspelt_field_is_right_once_it_has_the_name_that_was_meant(tmp_path: Path) -> None:
    fields = {"widht": 8, "height": 8, "bucket": "small"}
    said = said_of(tmp_path / "r.yaml", fields, {})
    found = re.search(r"did you mean (\w+)\?", said or "")
    assert found
    del fields["widht"]
    assert said_of(tmp_path / "r.yaml", fields | {found[1]: 8}, {}) is None


@pytest.mark.parametrize("followed", [{"prefix": "b/"}, {"bucket": "other"}])
def test_renditions_that_overlap_are_separate_once_the_line_is_followed(
    followed: dict[str, Any], tmp_path: Path
) -> None:
    other = {**BOX, "prefix": "a/"}
    fields = {**BOX, "prefix": "a/b/"}
    assert "choose separate prefixes or buckets" in (
        said_of(tmp_path / "r.yaml", fields, {"other": other}) or ""
    )
    assert said_of(tmp_path / "r.yaml", fields | followed, {"other": other}) is None


GOOD = "renditions:\n  small: {width: 8, height: 8, bucket: small}\n"


@pytest.mark.parametrize(
    ("wrong", "said", "followed"),
    [
        (f"{GOOD}# B\xfccher\n".encode("latin-1"), "save it as UTF-8", f"{GOOD}# B\xfccher\n"),
        (f"{GOOD}#{'-' * 2**20}\n", "remove comments", GOOD),
        (GOOD.replace("bucket: small", f"prefix: {'7' * 500}"), "in quotes if it is text", GOOD),
        (GOOD.replace("8,", f"{'8' * 500},", 1), "write it with fewer", GOOD),
        (GOOD.replace("width: 8", "width: !!bool 8"), "remove the tag", GOOD),
        (GOOD.replace("small}", "2026-02-30}"), "put a value that is text in quotes", GOOD),
        (GOOD.replace("small}", "small, width: 9}"), "keep one of the two", GOOD),
        (GOOD.replace("  small", " large: {}\n  small"), "check the indentation", GOOD),
        (GOOD.replace("renditions", "specs"), "the key 'renditions'", GOOD),
        (GOOD.replace("{width", "{name: small, width"), "the key is the name", GOOD),
        ("renditions: {small: 8}\n", "must be a mapping of fields", GOOD),
    ],
)
def test_a_file_is_right_once_the_line_is_followed(
    wrong: str | bytes, said: str, followed: str, tmp_path: Path
) -> None:
    file = tmp_path / "r.yaml"
    file.write_bytes(wrong if isinstance(wrong, bytes) else wrong.encode())
    with pytest.raises(UserError, match=re.escape(said)):
        load_renditions(file, "images")
    file.write_text(followed)
    assert load_renditions(file, "images")


def test_a_file_that_is_missing_is_found_once_the_setting_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="set RENDITIONS_FILE to a YAML file"):
        load_renditions(tmp_path / "none.yaml", "images")
    (tmp_path / "mine.yaml").write_text(GOOD)
    settings = Settings(renditions_file=tmp_path / "mine.yaml")
    assert load_renditions(settings.renditions_file, "images")
