"""Who may send requests to the UI of a running pipeline, and what such a request can do."""

import base64
import http.client
import json
import socket
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.support.project import Project

pytestmark = [pytest.mark.attacks, pytest.mark.integration]

TIMEOUT_S = 60.0
PASSWORD = "correct horse battery"
JSON = {"Content-Type": "application/json"}
EVIL = "http://evil.example"
STRANGERS_SERVER = {
    "endpoint": "http://127.0.0.1:9",
    "region": "us-east-1",
    "tls_skip_verify": False,
    "access_key": {"env": "MINIO_SECRET_KEY"},
    "secret_key": "anything",
}
LAUNCH = """mutation($p: ExecutionParams!) { launchRun(executionParams: $p) {
  __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on RunConfigValidationInvalid { errors { message } }
  ... on PythonError { message }
} }"""
RUNS = """query($tag: String!) {
  runsOrError(filter: {tags: [{key: "attack", value: $tag}]}) {
    ... on Runs { results { runId runConfigYaml } }
  }
}"""


@dataclass
class Attack:
    """A launch of a run, marked so that it is found if it was launched."""

    config: dict = field(default_factory=lambda: plan(objects=["x.jpg"]))
    tag: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def operation(self) -> dict:
        selector = {
            "repositoryLocationName": "resize_pipeline",
            "repositoryName": "__repository__",
            "jobName": "resize_images_job",
        }
        tags = {"dagster/partition": "2026-01-01-00:00", "dagster/max_retries": "0"}
        tags["attack"] = self.tag
        parameters = {
            "selector": selector,
            "runConfigData": self.config,
            "executionMetadata": {
                "tags": [{"key": key, "value": value} for key, value in tags.items()]
            },
        }
        return {"query": LAUNCH, "variables": {"p": parameters}}

    @property
    def body(self) -> str:
        return json.dumps(self.operation)

    @property
    def query_string(self) -> str:
        operation = self.operation
        return urlencode(operation | {"variables": json.dumps(operation["variables"])})

    def runs(self, url: str) -> list[dict]:
        answer = ask(url, RUNS, {"tag": self.tag})
        return answer["runsOrError"]["results"]


def plan(**fields) -> dict:
    return {"ops": {"renditions": {"ops": {"plan": {"config": fields}}}}}


def send(
    url: str, method: str, path: str, headers: dict[str, str], body: str | None = None
) -> tuple[int, dict[str, str], str]:
    """Send a request exactly as it is given, and return status, headers and body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None and "Transfer-Encoding" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body.encode() if body is not None else None)
        response = connection.getresponse()
        answered = {name.lower(): value for name, value in response.getheaders()}
        for policy in response.headers.get_all("content-security-policy") or ():
            answered["policies"] = f"{answered.get('policies', '')}; {policy}"
        return response.status, answered, response.read().decode(errors="replace")
    finally:
        connection.close()


def ask(url: str, query: str, variables: dict | None = None, **headers: str) -> dict:
    """Ask as the UI does."""
    body = json.dumps({"query": query, "variables": variables or {}})
    status, _, answer = send(url, "POST", "/graphql", JSON | {"Origin": url} | headers, body)
    assert status == 200, answer
    return json.loads(answer)["data"]


FORMS = {
    "text": "text/plain",
    "text that names JSON": "text/plain; application/json",
    "form": "application/x-www-form-urlencoded",
    "upload": "multipart/form-data; boundary=application/json",
    "graphql": "application/graphql",
}


class TestCrossOrigin:
    @pytest.mark.parametrize("origin", [{}, {"Origin": EVIL, "Referer": f"{EVIL}/"}])
    @pytest.mark.parametrize("accept", ["image/*", "*/*", "text/html"])
    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS"])
    def test_no_address_launches_a_run(
        self, pipeline: Project, method: str, accept: str, origin: dict
    ) -> None:
        attack = Attack(plan(objects=["x.jpg"]))
        path = f"/graphql?{attack.query_string}"
        status, headers, _ = send(pipeline.ui_url, method, path, {"Accept": accept} | origin)
        # A navigation shows GraphiQL, which executes nothing by itself.
        assert status >= 400 or (accept == "text/html" and "text/html" in headers["content-type"])
        assert not attack.runs(pipeline.ui_url)

    @pytest.mark.parametrize("kind", FORMS)
    def test_no_form_launches_a_run(self, pipeline: Project, kind: str) -> None:
        attack = Attack()
        body = attack.operation["query"] if kind == "graphql" else attack.body
        for path in ("/graphql", f"/graphql?{attack.query_string}"):
            headers = {"Content-Type": FORMS[kind]}
            status, _, answer = send(pipeline.ui_url, "POST", path, headers, body)
            assert status == 415, answer
        assert not attack.runs(pipeline.ui_url)

    def test_no_post_without_a_type_launches_a_run(self, pipeline: Project) -> None:
        attack = Attack()
        path = f"/graphql?{attack.query_string}"
        assert send(pipeline.ui_url, "POST", path, {}, "")[0] == 415
        assert not attack.runs(pipeline.ui_url)

    def test_no_post_without_a_type_reports_an_asset(self, pipeline: Project) -> None:
        for kind in ("materialization", "observation", "check"):
            path = f"/report_asset_{kind}/thumbnail?partition=2026-01-01-00:00&check_name=x"
            assert send(pipeline.ui_url, "POST", path, {}, "")[0] == 415

    @pytest.mark.parametrize("origin", [EVIL, "null", "file://", "http://127.0.0.1:1", "", "x"])
    def test_no_page_of_another_origin_launches_a_run(self, pipeline: Project, origin: str) -> None:
        attack = Attack()
        headers = JSON | {"Origin": origin}
        status, _, answer = send(pipeline.ui_url, "POST", "/graphql", headers, attack.body)
        assert status == 403, answer
        assert "UI_ALLOWED_HOSTS" in answer
        assert not attack.runs(pipeline.ui_url)

    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:{port}", "127.0.0.1.nip.io", ""]
    )
    def test_no_rebound_name_launches_a_run(self, pipeline: Project, host: str) -> None:
        attack = Attack()
        named = host.format(port=pipeline.ui_port)
        headers = JSON | {"Host": named, "Origin": f"http://{named}"}
        status, _, answer = send(pipeline.ui_url, "POST", "/graphql", headers, attack.body)
        assert status in {400, 421}, answer
        status, _, _ = send(pipeline.ui_url, "GET", "/", {"Host": named})
        assert status in {400, 421}
        assert not attack.runs(pipeline.ui_url)

    def test_bodies_are_bounded(self, pipeline: Project) -> None:
        claimed = JSON | {"Content-Length": str(10**12)}
        assert send(pipeline.ui_url, "POST", "/graphql", claimed)[0] == 413
        endless = JSON | {"Transfer-Encoding": "chunked"}
        assert send(pipeline.ui_url, "POST", "/graphql", endless)[0] == 411


class TestWebsocket:
    @pytest.mark.parametrize("origin", [EVIL, "null", "http://127.0.0.1:1"])
    def test_foreign_pages_are_refused(self, pipeline: Project, origin: str) -> None:
        url = f"ws://127.0.0.1:{pipeline.ui_port}/graphql"
        with pytest.raises(InvalidStatus, match="403"):
            connect(url, subprotocols=["graphql-ws"], origin=origin)

    def test_rebound_names_are_refused(self, pipeline: Project) -> None:
        name = f"evil.example:{pipeline.ui_port}"
        address = socket.create_connection(("127.0.0.1", pipeline.ui_port))
        with address, pytest.raises(InvalidStatus, match="403"):
            connect(
                f"ws://{name}/graphql",
                sock=address,
                subprotocols=["graphql-ws"],
                origin=f"http://{name}",
            )

    def test_subscriptions_work_and_launch_nothing(self, pipeline: Project) -> None:
        attack = Attack()
        url = f"ws://127.0.0.1:{pipeline.ui_port}/graphql"
        origin = pipeline.ui_url
        with connect(url, subprotocols=["graphql-ws"], origin=origin) as websocket:
            websocket.send(json.dumps({"type": "connection_init"}))
            assert json.loads(websocket.recv(TIMEOUT_S))["type"] == "connection_ack"
            websocket.send(json.dumps({"type": "start", "id": "1", "payload": attack.operation}))
            assert json.loads(websocket.recv(TIMEOUT_S))["type"] == "error"
        assert not attack.runs(pipeline.ui_url)


class TestRunConfig:
    @pytest.mark.parametrize(
        "config",
        [
            {"resources": {"minio": {"config": STRANGERS_SERVER}}} | plan(objects=["x.jpg"]),
            {"resources": {"minio": {"config": {"endpoint": "http://127.0.0.1:9"}}}},
            {"resources": {"kafka": {"config": {"bootstrap_servers": "127.0.0.1:9"}}}},
            {"resources": {"pipeline": {"config": {"renditions_file": "/etc/passwd"}}}},
            {"resources": {"renderer": {"config": {"timeout_s": 1e9}}}},
            {"execution": {"config": {"marker_to_close": "x"}}},
            {"loggers": {"console": {"config": {"name": {"env": "MINIO_SECRET_KEY"}}}}},
            plan(prefix={"env": "MINIO_SECRET_KEY"}),
            plan(objects=[{"env": "MINIO_SECRET_KEY"}]),
        ],
    )
    def test_nothing_but_the_objects_of_a_run_is_configured(
        self, pipeline: Project, config: dict
    ) -> None:
        attack = Attack(config)
        operation = attack.operation
        answer = ask(pipeline.ui_url, operation["query"], operation["variables"])
        assert answer["launchRun"]["__typename"] == "RunConfigValidationInvalid"
        assert not attack.runs(pipeline.ui_url)

    def test_the_uis_own_request_still_launches_a_run(self, pipeline: Project) -> None:
        attack = Attack()
        operation = attack.operation
        answer = ask(pipeline.ui_url, operation["query"], operation["variables"])
        assert answer["launchRun"]["__typename"] == "LaunchRunSuccess"
        [run] = attack.runs(pipeline.ui_url)
        assert "x.jpg" in run["runConfigYaml"]


class TestHeaders:
    @pytest.mark.parametrize("path", ["/", "/graphql", "/runs", "/favicon.svg", "/server_info"])
    def test_every_answer_has_them(self, pipeline: Project, path: str) -> None:
        status, headers, _ = send(pipeline.ui_url, "GET", path, {"Accept": "text/html"})
        assert status == 200
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["policies"]
        assert "connect-src 'self'" in headers["policies"]
        assert "access-control-allow-origin" not in headers

    def test_health_checks_may_name_any_host(self, pipeline: Project) -> None:
        for host in ("10.1.2.3:3000", "dagster-webserver"):
            status, _, answer = send(pipeline.ui_url, "GET", "/server_info", {"Host": host})
            assert status == 200
            assert "dagster_webserver_version" in answer


class TestFiles:
    """Whoever may use the UI reads what runs print, and no other file of the host."""

    @pytest.mark.parametrize(
        "path",
        [
            "/logs/history/runs.db",
            "/logs/history/runs/db",
            "/logs/history/runs/index/db",
            "/logs/schedules/schedules/db",
            "/logs/../credentials/env",
            "/logs/%2e%2e/credentials/env",
            "/logs/..%2f..%2f/env",
            "/logs//etc/passwd/out",
            "/logs/out",
            "/notebook?repoLocName=resize_pipeline&path=/tmp/x.ipynb",
            "/dagit/notebook?repoLocName=resize_pipeline&path=/tmp/x.ipynb",
        ],
    )
    def test_no_other_file_is_sent(self, pipeline: Project, path: str) -> None:
        assert (pipeline.folder / ".local" / "dagster" / "history" / "runs.db").exists()
        status, _, answer = send(pipeline.ui_url, "GET", path, {"Accept": "text/html"})
        assert "SQLite format 3" not in answer
        assert "MINIO_SECRET_KEY" not in answer
        # A path that a client has shortened is a page of the UI.
        assert status == 404 or (".." in path and "<html" in answer.lower())

    def test_the_output_of_runs_is_sent(self, pipeline: Project) -> None:
        storage = pipeline.folder / ".local" / "dagster" / "storage"
        output = storage / "a-run" / "compute_logs" / "a-step.err"
        output.parent.mkdir(parents=True)
        output.write_text("what a step printed")
        path = "/logs/storage/a-run/compute_logs/a-step/err"
        assert send(pipeline.ui_url, "GET", path, {})[::2] == (200, "what a step printed")

    def test_a_large_message_ends_its_websocket(self, pipeline: Project) -> None:
        with connect(
            f"ws://127.0.0.1:{pipeline.ui_port}/graphql",
            subprotocols=["graphql-ws"],
            origin=pipeline.ui_url,
        ) as websocket:
            websocket.send(json.dumps({"type": "connection_init", "payload": {"x": "y" * 2**19}}))
            assert json.loads(websocket.recv(TIMEOUT_S))["type"] == "connection_ack"
            with suppress(ConnectionClosed):
                websocket.send(json.dumps({"type": "start", "payload": {"x": "y" * 2**21}}))
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(TIMEOUT_S)
            assert closed.value.rcvd
            assert closed.value.rcvd.code == 1009


def basic(password: str, name: str = "me") -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    settings = {"UI_PASSWORD": PASSWORD, "UI_ALLOWED_HOSTS": "ui.example.com"}
    project = Project(tmp_path_factory.mktemp("locked"), settings)
    with project.running():
        yield project


class TestPassword:
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            basic("wrong"),
            basic(""),
            basic(PASSWORD[:-1]),
            basic(f"{PASSWORD}x"),
            {"Authorization": f"Bearer {PASSWORD}"},
            {"Authorization": basic(PASSWORD)["Authorization"].replace("Basic", "Bearer")},
            {"Authorization": "Basic \x80"},
            {"Authorization": "Basic"},
        ],
    )
    def test_without_it_there_is_nothing(self, locked: Project, headers: dict) -> None:
        for method, path in (("GET", "/"), ("GET", "/graphql"), ("GET", "/logs/x"), ("POST", "/")):
            body = "{}" if method == "POST" else None
            sent = {"Accept": "text/html"} | (JSON if body else {}) | headers
            status, answered, _ = send(locked.ui_url, method, path, sent, body)
            assert status == 401
            assert answered["www-authenticate"].startswith("Basic")
        with pytest.raises(InvalidStatus, match="403"):
            connect(
                f"ws://127.0.0.1:{locked.ui_port}/graphql",
                origin=locked.ui_url,
                additional_headers={k: v for k, v in headers.items() if v.isascii()},
            )

    def test_with_it_the_ui_answers(self, locked: Project) -> None:
        for headers in (basic(PASSWORD), basic(PASSWORD, name="")):
            assert send(locked.ui_url, "GET", "/", headers)[0] == 200
            assert ask(locked.ui_url, "{ version }", **headers)["version"]
        url = f"ws://127.0.0.1:{locked.ui_port}/graphql"
        with connect(
            url,
            subprotocols=["graphql-ws"],
            origin=locked.ui_url,
            additional_headers=basic(PASSWORD),
        ) as websocket:
            websocket.send(json.dumps({"type": "connection_init"}))
            assert json.loads(websocket.recv(TIMEOUT_S))["type"] == "connection_ack"

    def test_a_page_of_another_origin_has_no_use_of_it(self, locked: Project) -> None:
        headers = JSON | basic(PASSWORD) | {"Origin": EVIL}
        assert send(locked.ui_url, "POST", "/graphql", headers, Attack().body)[0] == 403

    def test_the_name_of_a_proxy_can_be_allowed(self, locked: Project) -> None:
        body = json.dumps({"query": "{ version }"})
        for host in ("ui.example.com", f"127.0.0.1:{locked.ui_port}"):
            headers = JSON | basic(PASSWORD) | {"Host": host, "Origin": "https://ui.example.com"}
            assert send(locked.ui_url, "POST", "/graphql", headers, body)[0] == 200

    def test_health_checks_need_none(self, locked: Project) -> None:
        assert send(locked.ui_url, "GET", "/server_info", {})[0] == 200
        assert send(locked.ui_url, "POST", "/server_info", JSON, "{}")[0] == 401

    def test_our_own_commands_send_it(self, locked: Project) -> None:
        done = locked.run("resize-pipeline", "reprocess", "--prefix", "none/")
        assert done.returncode == 0, done.stderr
        assert "run " in done.stdout

    def test_the_password_is_not_found_by_trying(self, locked: Project) -> None:
        def status(address: str, password: str) -> int:
            # The proxy of UI_ALLOWED_HOSTS says who sends a request.
            headers = basic(password) | {"X-Forwarded-For": address}
            return send(locked.ui_url, "GET", "/runs", headers)[0]

        tries = [status("203.0.113.7", f"guess {number}") for number in range(30)]
        assert set(tries[:10]) == {401}
        assert set(tries[12:]) == {429}
        assert status("203.0.113.7", PASSWORD) == 429
        assert status("203.0.113.8", PASSWORD) == 200
        assert send(locked.ui_url, "GET", "/runs", basic(PASSWORD))[0] == 200

    def test_what_executes_runs_has_no_password(self, locked: Project) -> None:
        found = {"resize_pipeline.instance.warm": 0, "dagster._daemon": 0}
        for process in psutil.process_iter():
            try:
                line, environment = process.cmdline(), process.environ()
            except psutil.Error:
                continue
            if environment.get("UI_PORT") == str(locked.ui_port):
                for part in found.keys() & {*line}:
                    found[part] += 1
                    assert "UI_PASSWORD" not in environment, line
        assert all(found.values()), found
