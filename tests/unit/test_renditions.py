import pickle
from pathlib import Path

import pytest

from resize_pipeline.errors import PermanentError, UserError
from resize_pipeline.renditions import document
from resize_pipeline.renditions import spec as renditions
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.renditions.spec import Rendition, metadata_read

SHIPPED = Path(__file__).parents[2] / "renditions.yaml"


def rendition(**fields) -> Rendition:
    return Rendition(**{"name": "large", "width": 1280, "height": 1280, "bucket": "out", **fields})


def load(tmp_path, text: str | bytes) -> tuple[Rendition, ...]:
    path = tmp_path / "renditions.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_renditions(path, "images")


def refusal(tmp_path, text: str | bytes) -> str:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    assert "renditions.yaml" in message
    return message


def one(**fields) -> str:
    """Return a spec file with one rendition `large`, without the fields that are None."""
    fields = {"width": 1280, "height": 1280, "bucket": "processed", **fields}
    lines = [f"    {name}: {value}" for name, value in fields.items() if value is not None]
    return "\n".join(["renditions:", "  large:", *lines])


def test_the_shipped_file_has_the_documented_renditions_in_order():
    loaded = load_renditions(SHIPPED, "images")
    assert [(one.name, one.width, one.height, one.bucket, one.quality) for one in loaded] == [
        ("large", 1280, 1280, "processed", 80),
        ("medium", 640, 640, "processed-medium", 80),
        ("thumbnail", 160, 160, "processed-thumbnail", 80),
    ]
    assert {(one.fit, one.prefix) for one in loaded} == {("inside", "")}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"width": 0}, ["width", "0", "greater than or equal to 1"]),
        ({"width": 16384}, ["width", "16384", "16383"]),
        ({"height": -5}, ["height", "-5", "greater than or equal to 1"]),
        ({"height": "tall"}, ["height", "'tall'", "valid integer"]),
        ({"width": "true"}, ["width", "True", "valid integer"]),
        ({"width": None}, ["width", "missing"]),
        ({"bucket": None}, ["bucket", "missing"]),
        ({"quality": 101}, ["quality", "101", "100"]),
        ({"quality": 0}, ["quality", "0", "1"]),
        ({"quality": "true"}, ["quality", "True", "integer from 1 to 100, or {ssim: S}"]),
        ({"quality": "{ssim: 98}"}, ["quality", "{'ssim': 98}", "from 0.8 to 0.999"]),
        ({"quality": "{ssim: .nan}"}, ["quality", "nan", "from 0.8 to 0.999"]),
        ({"quality": "{ssim: 0.9, psnr: 1}"}, ["quality", "psnr", "or {ssim: S}"]),
        (
            {"format": "webp", "lossless": "true", "quality": "{ssim: 0.9}"},
            ["quality", "ssim", "removed, or lossless"],
        ),
        ({"jpeg_encoder": "mozjpeg"}, ["jpeg_encoder", "'mozjpeg'", "'libjpeg' or 'jpegli'"]),
        (
            {"format": "webp", "jpeg_encoder": "jpegli"},
            ["jpeg_encoder", "'jpegli'", "one of same, jpeg"],
        ),
        (
            {"jpeg_encoder": "jpegli", "progressive": "true"},
            ["progressive", "True", "removed, as jpegli"],
        ),
        ({"fit": "stretch"}, ["fit", "'stretch'", "'inside', 'outside', 'cover', 'contain' or"]),
        ({"colour": "red"}, ["colour", "'red'", "width, height, fit, position, enlarge, format"]),
        ({"fit": "cover", "position": "top"}, ["position", "'top'", "center, north", "X,Y"]),
        ({"fit": "cover", "position": "1.5,0"}, ["position", "'1.5,0'", "0,0 to 1,1"]),
        ({"position": "north"}, ["position", "'north'", "removed, or fit set to cover"]),
        ({"enlarge": "2"}, ["enlarge", "2", "valid boolean"]),
        ({"format": "jpg"}, ["format", "'jpg'", "'same', 'jpeg', 'png', 'webp', 'avif', 'gif' or"]),
        ({"format": "png", "quality": 70}, ["quality", "70", "one of same, jpeg, webp, avif"]),
        ({"format": "jpeg", "lossless": "true"}, ["lossless", "True", "one of same, webp"]),
        ({"format": "webp", "progressive": "true"}, ["progressive", "True", "one of same, jpeg"]),
        ({"format": "gif", "effort": 3}, ["effort", "3", "one of same, png, webp, avif"]),
        ({"effort": 10}, ["effort", "10", "less than or equal to 9"]),
        ({"background": "white"}, ["background", "'white'", "'#rrggbb'"]),
        ({"background": "'#fff'"}, ["background", "'#fff'", "'#rrggbbaa'"]),
        ({"format": "webp", "background": "'#ffffff'"}, ["background", "fit set to contain"]),
        ({"metadata": "all"}, ["metadata", "'all'", "strip, or a list", "copyright, profile"]),
        ({"metadata": "[exif]"}, ["metadata", "['exif']", "copyright, profile"]),
        ({"metadata": "[]"}, ["metadata", "[]", "strip, or a list"]),
        ({"animation": "all"}, ["animation", "'all'", "'keep' or 'first'"]),
        ({"cache_control": "é"}, ["cache_control", "'é'", "printable ASCII"]),
        ({"cache_control": "x" * 257}, ["cache_control", "256"]),
        ({"transform": "os.system"}, ["transform", "'os.system'", "package.module:function"]),
        ({"transform": "a.b:c"}, ["version", "missing", "set for a transform"]),
        ({"version": 2}, ["version", "2", "as there is no transform"]),
        ({"transform": "a:b", "version": 0}, ["version", "0", "greater than or equal to 1"]),
        (
            {"transform": "a:b", "version": 1, "metadata": "[profile]"},
            ["metadata", "'profile'", "receives sRGB"],
        ),
        ({"name": "other"}, ["name", "the key is the name"]),
        ({"bucket": "Not_A_Bucket"}, ["bucket", "'Not_A_Bucket'", "3 to 63"]),
        ({"bucket": "10.0.0.1"}, ["bucket", "'10.0.0.1'", "not an IP address"]),
        ({"bucket": "a..b"}, ["bucket", "'a..b'", "S3 bucket name"]),
        ({"bucket": "ab"}, ["bucket", "'ab'", "3 to 63"]),
        ({"bucket": "images"}, ["bucket", "'images'", "SOURCE_BUCKET", "another bucket"]),
        ({"prefix": "/small"}, ["prefix", "'/small'", "leading slash"]),
        ({"prefix": "a/../b/"}, ["prefix", "'a/../b/'", "'../'"]),
        ({"prefix": "x" * 513}, ["prefix", "512"]),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_what_is_allowed(tmp_path, fields, words):
    message = refusal(tmp_path, one(**fields))
    for word in ["'large'", *words]:
        assert word in message


@pytest.mark.parametrize(
    "name", ["4k", "with-dash", "with space", "é", "class", "input", "raw_images"]
)
def test_a_name_that_dagster_would_refuse_is_refused(tmp_path, name):
    message = refusal(tmp_path, one().replace("large", name))
    assert f"rendition {name!r}, name: {name!r}" in message


def test_a_name_that_is_a_number_in_yaml_is_refused(tmp_path):
    assert "rendition 160, name: 160 must be a valid string" in refusal(
        tmp_path, one().replace("large", "160")
    )


def test_every_problem_is_in_the_one_message(tmp_path):
    text = one(width=0, quality=0) + "\n  small: 3\n  tiny: {width: 1, height: 1, bucket: images}"
    text += "\n  odd: {width: 1, height: 1, bucket: other, position: north, version: 3}"
    message = refusal(tmp_path, text)
    for problem in ("'large', width: 0", "'large', quality: 0", "'small': 3", "'tiny', bucket"):
        assert problem in message
    for problem in ("'odd', position: 'north'", "'odd', version: 3"):
        assert problem in message
    assert message.count("; ") == 5


@pytest.mark.parametrize(
    ("prefixes", "allowed"),
    [
        (("", ""), False),
        (("", "small/"), False),
        (("a/", "a/b/"), False),
        (("a/b", "a/"), False),
        (("a/", "a/"), False),
        (("a/", "b/"), True),
        (("a/b/", "a/c/"), True),
    ],
)
def test_renditions_of_one_bucket_need_prefixes_apart(tmp_path, prefixes, allowed):
    lines = [
        f"  r{index}: {{width: 9, height: 9, bucket: shared, prefix: '{prefix}'}}"
        for index, prefix in enumerate(prefixes)
    ]
    text = "\n".join(["renditions:", *lines])
    if allowed:
        assert [one.prefix for one in load(tmp_path, text)] == list(prefixes)
    else:
        message = refusal(tmp_path, text)
        for word in ("'r0'", "'r1'", "prefix", "'shared'", *map(repr, prefixes)):
            assert word in message


def test_equal_prefixes_in_different_buckets_are_fine(tmp_path):
    text = one(prefix="a/") + "\n  other: {width: 1, height: 1, bucket: elsewhere, prefix: a/}"
    assert len(load(tmp_path, text)) == 2


def test_a_missing_file_names_the_setting(tmp_path):
    with pytest.raises(UserError, match=r"absent\.yaml: .*No such file.*RENDITIONS_FILE"):
        load_renditions(tmp_path / "absent.yaml", "images")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="RENDITIONS_FILE"):
        load_renditions(tmp_path, "images")


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "renditions:", "renditions: {}", "renditions: [large]", "other: {}", "[1]"],
)
def test_a_file_without_renditions_is_refused(tmp_path, text):
    assert "'renditions'" in refusal(tmp_path, text)


def test_a_line_that_is_indented_wrongly(tmp_path):
    message = refusal(tmp_path, "renditions:\n  large:\n    width: 10\n   height: 10\n")
    assert message.endswith("; check the indentation")


def test_a_misspelt_field_is_told_from_one_that_is_none(tmp_path):
    path = tmp_path / "renditions.yaml"
    path.write_text("renditions: {large: {widht: 10, height: 10, bucket: big, zzz: 1}}")
    with pytest.raises(UserError) as refused:
        load_renditions(path, "images")
    assert "widht: 10: no such field, did you mean width? must be one of width, " in str(
        refused.value
    )
    assert "zzz: 1: no such field; must be one of width, " in str(refused.value)


def test_an_unknown_top_level_key_is_refused(tmp_path):
    assert "the key 'renditions'" in refusal(tmp_path, one() + "\nrendition: {}")


def test_a_syntax_error_names_its_line(tmp_path):
    assert ", line 3: " in refusal(tmp_path, "renditions:\n  large:\n    width: 1: 2\n")


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        (one() + "\n  large: {width: 1, height: 1, bucket: other}", "'large'", 6),
        (one() + "\n    width: 640", "'width'", 6),
        (one() + "\nrenditions: {}", "'renditions'", 6),
    ],
)
def test_a_repeated_key_is_refused_with_its_line(tmp_path, text, key, line):
    message = refusal(tmp_path, text)
    assert f"line {line}: {key} is given twice" in message


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe\x00",
        b"renditions: \x00",
        b"\x80",
        "renditions: {large: {width: 2024-99-99}}",
        "[" * 5000,
        "renditions: {? [a] : 1}",
        "renditions: !!python/object/apply:os.system [id]",
        "renditions: &a {large: *a}",
    ],
)
def test_what_is_not_a_spec_at_all_is_one_clear_line(tmp_path, text):
    assert len(refusal(tmp_path, text)) < 600


def test_a_file_that_is_too_large_is_not_parsed(tmp_path):
    padding = "#" * (document.FILE_MAX_BYTES - len(one()) - 1)
    assert load(tmp_path, f"{one()}\n{padding}")
    assert f"{document.FILE_MAX_BYTES} bytes" in refusal(tmp_path, f"{one()}\n{padding}#")


def test_nested_aliases_do_not_blow_up_the_message(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert len(refusal(tmp_path, "\n".join(lines))) < 600


def test_the_digest_is_stable():
    # A change here makes all existing renditions outdated: raise RENDERER_VERSION on purpose.
    assert rendition(bucket="processed").digest == "79a2512470e14273"
    assert rendition(bucket="processed", fit="inside", quality=80, prefix="").digest == (
        "79a2512470e14273"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"width": 1279},
        {"height": 1279},
        {"fit": "cover"},
        {"fit": "cover", "position": "north"},
        {"fit": "cover", "position": "0.5,0.4"},
        {"enlarge": True},
        {"format": "webp"},
        {"quality": 79},
        {"quality": {"ssim": 0.9}},
        {"jpeg_encoder": "jpegli"},
        {"lossless": True},
        {"progressive": True},
        {"effort": 3},
        {"background": "#000000"},
        {"metadata": ["profile"]},
        {"metadata": ["copyright"]},
        {"animation": "first"},
        {"cache_control": "no-cache"},
        {"bucket": "other"},
        {"prefix": "a/"},
        {"transform": "a:b", "version": 1},
        {"transform": "a:b", "version": 2},
        {"transform": "a:c", "version": 1},
    ],
)
def test_the_digest_changes_with_whatever_changes_bytes_or_place(change):
    assert rendition(**change).digest != rendition().digest
    others = [
        one for one in [{}, {"fit": "cover"}, {"transform": "a:b", "version": 1}] if one != change
    ]
    assert all(rendition(**change).digest != rendition(**one).digest for one in others)


def test_the_digest_changes_with_the_renderer(monkeypatch):
    before = rendition().digest
    monkeypatch.setattr(renditions, "RENDERER_VERSION", renditions.RENDERER_VERSION + 1)
    assert rendition().digest != before


def test_the_digest_does_not_change_with_the_name():
    assert rendition(name="other").digest == rendition().digest


@pytest.mark.parametrize(
    "key", ["rose.jpg", "deeper/path/rose.jpg", "a b+c%20d.png", "日本/é\u0301🌹.webp", "a//b", " "]
)
def test_a_key_stays_as_it_is_behind_the_prefix(key):
    assert rendition().key_for(key) == key
    assert rendition(prefix="small/").key_for(key) == "small/" + key
    for prefix in ("", "small/", "a", "rose.jpg"):
        made = rendition(prefix=prefix)
        assert made.source_key_of(made.key_for(key)) == key


@pytest.mark.parametrize("format_and_extension", renditions.EXTENSIONS.items())
def test_a_set_format_always_appends_its_extension(format_and_extension):
    name, extension = format_and_extension
    spec = rendition(format=name, prefix="small/")
    assert spec.key_for("a/rose.jpg") == f"small/a/rose.jpg{extension}"
    assert spec.key_for(f"rose{extension}") == f"small/rose{extension}{extension}"


def test_every_field_can_be_given(tmp_path):
    text = one(
        fit="cover",
        position="focal-point",
        enlarge="true",
        format="webp",
        quality=70,
        lossless="true",
        effort=9,
        metadata="[profile, copyright]",
        animation="first",
        cache_control="public, max-age=31536000, immutable",
        prefix="small/",
    )
    [spec] = load(tmp_path, text)
    assert spec.metadata == ("copyright", "profile")
    assert spec.cache_control == "public, max-age=31536000, immutable"
    [spec] = load(tmp_path, one(fit="contain", background="'#AABBCCDD'", metadata="strip"))
    assert (spec.background, spec.metadata) == ("#aabbccdd", ())
    [spec] = load(tmp_path, one(transform="my.steps:watermark", version=3, progressive="true"))
    assert (spec.transform, spec.version) == ("my.steps:watermark", 3)


def test_a_spec_survives_the_way_to_a_child():
    spec = rendition(fit="cover", position="0.2,1", metadata=["profile"])
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301


@pytest.mark.parametrize(
    ("metadata", "point"),
    [
        ({}, (0.5, 0.5)),
        ({"other": "x"}, (0.5, 0.5)),
        ({"focal-point": "0.3,0.7"}, (0.3, 0.7)),
        ({"focal-point": "0, 1"}, (0, 1)),
        ({"focal-point": " .25 , 1.0 "}, (0.25, 1)),
    ],
)
def test_a_focal_point_is_read_from_the_object(metadata, point):
    spec = rendition(fit="cover", position="focal-point").resolved(metadata)
    assert spec.point == point


@pytest.mark.parametrize(
    "value",
    ["0.3", "0.3;0.7", "1.1,0", "-0.1,0", "nan,0", "0.1234567,0", "a" * 5000, "0.3,0.7,1", "\n"],
)
def test_a_focal_point_that_is_none_is_refused_with_what_is_allowed(value):
    spec = rendition(fit="cover", position="focal-point")
    with pytest.raises(PermanentError, match=r"x-amz-meta-focal-point: .* must be X,Y") as caught:
        spec.resolved({"focal-point": value})
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_the_digest_of_a_resolved_spec_tells_focal_points_apart():
    spec = rendition(fit="cover", position="focal-point")
    digests = [
        spec.resolved(metadata).digest
        for metadata in ({}, {"focal-point": "0.3,0.7"}, {"focal-point": "0.3,0.8"})
    ]
    assert len(set(digests)) == 3
    assert digests[1] == spec.resolved({"focal-point": "0.3, 0.7", "other": "x"}).digest


def test_what_no_spec_reads_is_not_read():
    metadata = {"focal-point": "0.3,0.7"}
    assert metadata_read([rendition()], metadata) == ""
    reader = rendition(fit="cover", position="focal-point")
    assert metadata_read([rendition(), reader], metadata) == "'0.3,0.7'"
    assert metadata_read([reader], {}) == ""
    assert rendition(fit="cover").resolved(metadata) == rendition(fit="cover")
