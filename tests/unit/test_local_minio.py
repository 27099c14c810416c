"""Which MinIO program runs, how it is built, and what its environment contains."""

import stat
from pathlib import Path

import pytest

from resize_pipeline.errors import UserError
from resize_pipeline.local.servers import minio
from resize_pipeline.settings import Settings

SCRIPT = "#!/bin/sh\n"
GO = f'{SCRIPT}if [ $1 = mod ]; then echo \'{{"Sum": "{minio.MINIO_SUM}"}}\'; exit; fi\n'
"""A `go` whose download is what is pinned."""


def executable(path: Path, text: str = SCRIPT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path for a fake `go`; PATH has only system programs, the cache is empty."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(minio, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(minio, "package_dir", lambda _module: tmp_path / "go")
    return tmp_path / "go" / "bin" / "go"


def test_minio_bin_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = executable(tmp_path / "chosen")
    on_path = executable(tmp_path / "bin" / "minio")
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert minio.minio_program(Settings(minio_bin=chosen)) == chosen
    assert minio.minio_program(Settings()) == on_path


def test_a_wrong_minio_bin_is_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(UserError, match=f"MINIO_BIN is {missing}, which does not exist"):
        minio.minio_program(Settings(minio_bin=missing))
    missing.touch()
    with pytest.raises(UserError, match="not executable: chmod"):
        minio.minio_program(Settings(minio_bin=missing))


def test_it_is_built_once_with_the_users_proxy(
    go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    monkeypatch.setenv("GOFLAGS", "-p=1")
    log = tmp_path / "calls"
    executable(
        go,
        f'{GO}echo "$HTTPS_PROXY|$GOFLAGS|$*" >> {log}\nmkdir -p "$GOBIN"\n'
        'printf built > "$GOBIN/minio"; chmod +x "$GOBIN/minio"\n',
    )
    first, second = minio.minio_program(Settings()), minio.minio_program(Settings())
    assert first == second
    assert first.read_text() == "built"
    assert first.is_relative_to(tmp_path / "cache")
    (call,) = log.read_text().splitlines()
    assert call.startswith("http://proxy:1|-p=1 -modcacherw|install -v -trimpath ")
    assert call.endswith(f"{minio.MINIO_MODULE}@{minio.MINIO_VERSION}")


def test_a_failed_build_says_what_and_where_the_log_is(go: Path, tmp_path: Path) -> None:
    executable(go, f"{GO}echo 'dial tcp: no route to host' >&2\nexit 7\n")
    with pytest.raises(UserError) as raised:
        minio.minio_program(Settings())
    log = tmp_path / "cache" / "minio" / "build.log"
    assert str(raised.value) == (
        f"MinIO could not be built (exit code 7): dial tcp: no route to host; log: {log}"
    )
    assert "no route" in log.read_text()
    assert not list(log.parent.glob("*making*"))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ('{"Sum": "h1:other="}', "its checksum is h1:other="),
        ('{"Error": "no such host"}', "no such host"),
        ("", "its checksum is None"),
    ],
)
def test_a_source_that_is_not_pinned_is_not_built(
    go: Path, tmp_path: Path, answer: str, said: str
) -> None:
    built = tmp_path / "built"
    executable(go, f"{SCRIPT}if [ $1 = mod ]; then echo '{answer}'; exit; fi\ntouch {built}\n")
    with pytest.raises(UserError, match=f"is not what is pinned: .*{said}; set GOPROXY"):
        minio.minio_program(Settings())
    assert not built.exists()


def test_the_server_sees_no_setting_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIO_SECRET_KEY", "ours")
    monkeypatch.setenv("MINIO_DOMAIN", "ours")
    monkeypatch.setenv("KAFKA_OPTS", "ours")
    settings = Settings(
        minio_bin=executable(
            tmp_path / "bin" / "minio", f"{SCRIPT}echo minio version 1.2.3 '(x)'\n"
        ),
        minio_root_password="hidden-password",
        local_dir=tmp_path,
    )
    service = minio.minio_service(settings)
    assert "ours" not in service.env.values()
    assert service.env["MINIO_ROOT_PASSWORD"] == "hidden-password"
    assert "hidden-password" not in " ".join(service.argv)
    assert service.version == "1.2.3"


def test_lines_of_go_are_counted() -> None:
    lines = ["go: downloading a v1\n", "go: finding b\n", "internal/cpu\n", "a/b\n"]
    assert minio.count_go_lines(lines) == (1, 2)
