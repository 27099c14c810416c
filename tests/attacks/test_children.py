"""What code can do that has taken over a rendering child. A transform stands for it."""

import io
import multiprocessing
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from resize_pipeline.errors import PermanentError, TransformError
from resize_pipeline.imaging.child_process import child_report
from resize_pipeline.imaging.limits import RenderLimits
from resize_pipeline.imaging.renderer import Renderer
from resize_pipeline.renditions.spec import Rendition
from tests.integration.test_celery import WorkersProject
from tests.support import taken_over
from tests.support.pictures import decoded, encoded
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.attacks,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="attacks by numbers of x86-64"),
]

REPOSITORY = Path(__file__).parents[2]
LIMITS = RenderLimits(60, 2**31, 10**8, 10**8, 10**8)
PNG = encoded(Image.new("RGB", (90, 60), (200, 0, 0)), "PNG")
SPEC = Rendition(name="small", width=9, height=9, format="png", bucket="small-bucket")
REFUSED = r"Permission denied|Operation not permitted|Function not implemented|PermissionError"
# As children were before there was a sandbox: so each attack is seen to succeed.
UNCONFINED = """
try:
    from resize_pipeline.imaging import sandbox
    sandbox.enter = lambda read_paths: None
except ImportError:
    pass
"""
# There is nothing to see for the parent, or it would harm the tests.
NOT_TRIED = {"become_a_program", "write_into_a_terminal", "leave_the_limits"}


def put_secrets(folder: Path) -> None:
    """Put secrets into a project's folder, beside a module of its own."""
    (folder / ".local").mkdir(parents=True)
    for name in (".env", ".local/credentials", "secrets.yaml", "removable", "renamable"):
        (folder / name).write_text("MINIO_SECRET_KEY=hunter2-very-secret")
    shutil.copy(taken_over.__file__, folder)


def made_project(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    put_secrets(folder)
    patch.chdir(folder)
    patch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{REPOSITORY}")
    patch.setenv("MINIO_SECRET_KEY", "hunter2-very-secret")
    return folder


@contextmanager
def rendering(limits: RenderLimits = LIMITS) -> Iterator[Renderer]:
    renderer = Renderer(limits, workers=1)
    try:
        yield renderer
    finally:
        renderer.close()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return made_project(tmp_path / "project", monkeypatch)


def started_in(folder: Path, patch: pytest.MonkeyPatch, **files: str) -> Renderer:
    """Start a renderer whose child has a project of its own; it must not be replaced by another."""
    made_project(folder, patch)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    renderer = Renderer(LIMITS, workers=1)
    assert len(renderer.render(PNG, [SPEC])) == 1
    return renderer


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Renderer]:
    with pytest.MonkeyPatch.context() as patch:
        renderer = started_in(tmp_path_factory.mktemp("confined") / "project", patch)
    yield renderer
    renderer.close()


@pytest.fixture(scope="module")
def unconfined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Renderer]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("unconfined") / "project"
        renderer = started_in(folder, patch, sitecustomize=UNCONFINED)
    yield renderer
    renderer.close()


def spec(function: str) -> Rendition:
    return SPEC.model_copy(update={"transform": f"taken_over:{function}", "version": 1})


def test_every_step_of_the_sandbox_takes_effect_here() -> None:
    assert set(child_report().sandbox.values()) == {"on"}


@pytest.mark.parametrize("attack", taken_over.ATTACKS)
def test_attack_is_refused(renderer: Renderer, attack: str) -> None:
    with pytest.raises(TransformError, match=REFUSED):
        renderer.render(PNG, [spec(f"transform_{attack}")])
    assert len(renderer.render(PNG, [SPEC])) == 1


@pytest.mark.parametrize("attack", sorted(set(taken_over.ATTACKS) - NOT_TRIED))
def test_attack_succeeds_without_the_sandbox(unconfined: Renderer, attack: str) -> None:
    """Otherwise its refusal would show nothing."""
    assert len(unconfined.render(PNG, [spec(f"transform_{attack}")])) == 1


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("function", ["no_unneeded_call", "own_files", "all_refused"])
def test_neither_is_what_no_picture_needs(function: str) -> None:
    with rendering() as renderer:
        assert len(renderer.render(PNG, [spec(function)])) == 1


@pytest.mark.usefixtures("project")
def test_calls_of_a_foreign_architecture_end_the_child() -> None:
    with rendering() as renderer:
        with pytest.raises(TransformError, match="exit code -31"):
            renderer.render(PNG, [spec("foreign_calls")])
        assert len(renderer.render(PNG, [SPEC])) == 1


def test_the_parent_executes_nothing(project: Path) -> None:
    with rendering() as renderer:
        with pytest.raises(PermanentError, match="answered with a message that fails"):
            renderer.render(PNG, [spec("answer_with_code")])
        assert not (project / "by-the-parent").exists()
        assert len(renderer.render(PNG, [SPEC])) == 1


@pytest.mark.usefixtures("project")
def test_the_next_picture_gets_none_of_its_answers() -> None:
    """What a child says of the picture that took it over can't be told from the truth."""
    with rendering() as renderer:
        [forged] = renderer.render(PNG, [spec("answer_twice")])
        assert forged.data == b"forged"
        [true] = renderer.render(PNG, [SPEC])
        assert true.data.startswith(b"\x89PNG")


def test_no_picture_fails_a_run(project: Path) -> None:
    """A UserError would, so a child may answer with one only for a transform's sake."""
    (project / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'resize_pipeline.imaging.child' in sys.orig_argv:\n"
        "    import resize_pipeline.imaging.render as imaging\n"
        "    from resize_pipeline.errors import UserError\n"
        "    def render(*_, **__): raise UserError('set KAFKA_BOOTSTRAP_SERVERS')\n"
        "    imaging.render = render\n"
    )
    expected = pytest.raises(PermanentError, match="with a UserError without a transform")
    with rendering() as renderer, expected:
        renderer.render(PNG, [SPEC])


def test_what_a_child_says_reaches_no_terminal(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (project / "loud.py").write_text(
        "import os\n"
        "def shout(image):\n"
        "    for descriptor in (1, 2):\n"
        "        os.write(descriptor, b'\\x1b]0;taken over\\x07')\n"
        "    raise ValueError('\\x1b[2J')\n"
    )
    with rendering() as renderer, pytest.raises(TransformError) as caught:
        renderer.render(PNG, [SPEC.model_copy(update={"transform": "loud:shout", "version": 1})])
    assert "\x1b" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_named_paths_can_be_read_and_no_others(project: Path) -> None:
    fonts = project.parent / "fonts"
    fonts.mkdir()
    (fonts / "rosa.ttf").write_bytes(b"font")
    (project / "signing.py").write_text(
        "from pathlib import Path\n"
        f"def sign(image):\n    assert Path({str(fonts / 'rosa.ttf')!r}).read_bytes()\n"
        "    return image\n"
    )
    sign = SPEC.model_copy(update={"transform": "signing:sign", "version": 1})
    for paths in ((str(fonts),), (str(fonts / "rosa.ttf"),)):
        with rendering(replace(LIMITS, read_paths=paths)) as renderer:
            assert len(renderer.render(PNG, [sign])) == 1
            with pytest.raises(TransformError, match=REFUSED):
                renderer.render(PNG, [spec("transform_read_dot_env")])
    with rendering() as renderer, pytest.raises(TransformError, match="RENDER_READ_PATHS"):
        renderer.render(PNG, [sign])


@pytest.mark.parametrize(
    "layout", ["module", "package", "folder without __init__", "late", "numpy"]
)
def test_transforms_are_found_where_they_were(project: Path, layout: str) -> None:
    """Although the folder that they lie in can't be listed any more."""
    code = "def own(image):\n    return image.convert('L')\n"
    late = "def own(image):\n    import helpers.grey\n    return helpers.grey.own(image)\n"
    numpy = "import numpy\nfrom PIL import Image\ndef own(image):\n    a = numpy.asarray(image)\n"
    numpy += "    return Image.fromarray(255 - a @ numpy.eye(3, dtype='uint8'))\n"
    files = {
        "module": {"own_step.py": code},
        "package": {
            "own_step/__init__.py": "from own_step.grey import own\n",
            "own_step/grey.py": code,
        },
        "folder without __init__": {"own_step/grey.py": code},
        "late": {"own_step.py": late, "helpers/__init__.py": "", "helpers/grey.py": code},
        "numpy": {"own_step.py": numpy},
    }[layout]
    for name, text in files.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text)
    module = "own_step.grey" if layout == "folder without __init__" else "own_step"
    with rendering() as renderer:
        own = SPEC.model_copy(update={"transform": f"{module}:own", "version": 1})
        assert len(renderer.render(PNG, [own])) == 1


def attack_in_a_worker(answers: "multiprocessing.Queue[str]") -> None:
    with rendering() as renderer:
        try:
            renderer.render(PNG, [spec("all_refused")])
            answers.put("refused")
        except PermanentError as error:
            answers.put(str(error))


@pytest.mark.usefixtures("project")
def test_children_of_a_daemonic_process_are_confined_too() -> None:
    """Celery's workers are such processes, and multiprocessing allows them no children."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    worker = context.Process(target=attack_in_a_worker, args=(answers,), daemon=True)
    worker.start()
    assert answers.get(timeout=120) == "refused"
    worker.join(60)


@pytest.mark.integration
def test_children_of_a_celery_worker_are_confined_too(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """With the secrets that a pipeline has: those of `.local`, and of the worker's environment."""
    folder = tmp_path_factory.mktemp("workers")
    paths = f"{folder}{os.pathsep}{REPOSITORY}"
    project = WorkersProject(folder, {"PYTHONPATH": paths})
    put_secrets(folder)
    (folder / "renditions.yaml").write_text(
        "renditions: {attacked: {width: 9, height: 9, format: png, bucket: attacked-bucket, "
        "transform: 'taken_over:all_refused', version: 1}}\n"
    )
    with project.running("up", "--workers", "1"):
        minio = project.administrator()
        minio.put_object("images", "picture.png", io.BytesIO(PNG), len(PNG))

        def ended() -> object:
            listed = project.run("resize-pipeline", "dead-letters", "list")
            assert "picture.png" not in listed.stdout, listed.stdout
            return list(minio.list_objects("attacked-bucket"))

        wait_until(ended, 240, "the rendition")
        answer = minio.get_object("attacked-bucket", "picture.png.png")
        try:
            assert decoded(answer.read()).getpixel((4, 4)) == (0, 200, 0)
        finally:
            answer.close()
            answer.release_conn()


@pytest.fixture
def pictures() -> Callable[[str], bytes]:
    return lambda picture_format: encoded(Image.effect_noise((640, 480), 80), picture_format)


@pytest.mark.parametrize("source", ["AVIF", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
def test_every_format_is_read_and_written_inside(
    renderer: Renderer, pictures: Callable[[str], bytes], source: str
) -> None:
    """Codecs start threads, count processors and load libraries."""
    formats = ("avif", "gif", "jpeg", "png", "tiff", "webp")
    specs = [
        Rendition(name=one, width=400, height=400, format=one, bucket="a-bucket") for one in formats
    ]
    made = renderer.render(pictures(source), specs)
    assert [one.format for one in made] == [one.upper() for one in formats]
    for one in made:
        assert renderer.thumbnail(one.data)
    assert renderer.contact_sheet([one.data for one in made], max_bytes=50_000)
