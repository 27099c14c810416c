"""The pipeline on a node: brings it up, uploads to it, and kills its pods."""

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.kubernetes.node import Node
from tests.support.kubernetes_files import OWN
from tests.support.waiting import wait_until

FIGURES: dict[str, float] = {}
"""By what was waited for, how many seconds it took."""
KILLS: dict[str, dict[str, Any]] = {}
"""What was found after each kill, by what was killed."""
NAMESPACE = "resize-pipeline"
UI_PASSWORD = "password-of-the-ui"
UP_TIMEOUT_S = 1800
SETTLED_TIMEOUT_S = 1800
JUDGED_TIMEOUT_S = 1800
STRICT = ("--server-side", "--validate=strict")
T = TypeVar("T")
RUNS = """
import json
import dagster as dg
with dg.DagsterInstance.get() as instance:
    found = [
        {
            "id": one.dagster_run.run_id,
            "parent": one.dagster_run.parent_run_id,
            "root": one.dagster_run.root_run_id or one.dagster_run.run_id,
            "status": one.dagster_run.status.value,
            "created": one.create_timestamp.timestamp(),
            "started": one.start_time,
            "ended": one.end_time,
        }
        for one in instance.get_run_records()
    ]
print("runs:", json.dumps(found))
"""


def claims() -> list[str]:
    """Return the names of all claims of volumes."""
    found = [one["metadata"]["name"] for one in OWN if one["kind"] == "PersistentVolumeClaim"]
    return found + [
        f"{template['metadata']['name']}-{one['metadata']['name']}-0"
        for one in OWN
        for template in one.get("spec", {}).get("volumeClaimTemplates", [])
    ]


class Deployed:
    """What one overlay of deploy/kubernetes brings."""

    def __init__(self, node: Node, overlay: Path) -> None:
        self.node = node
        self._overlay = overlay

    def kubectl(self, *arguments: str | Path, timeout: float = 120) -> str:
        """Run kubectl in the namespace, and return what it printed."""
        words = (f"--namespace={NAMESPACE}", *arguments)
        return self.node.server.ask(*words, timeout=timeout)

    def up(self) -> None:
        """Apply everything, and wait until it is ready."""
        self.node.make_volumes(claims())
        started = time.monotonic()
        self.node.server.ask("apply", *STRICT, "-k", self._overlay)
        try:
            self.wait_ready()
            FIGURES["all pods ready after apply"] = time.monotonic() - started
            done = ("wait", "job/provision", "--for=condition=Complete")
            self.kubectl(*done, f"--timeout={UP_TIMEOUT_S}s", timeout=UP_TIMEOUT_S + 30)
            FIGURES["provisioned after apply"] = time.monotonic() - started
        except (AssertionError, subprocess.TimeoutExpired) as error:
            raise AssertionError(f"{error}\n{self.said()}") from error

    def wait_ready(self) -> None:
        """Wait until all pods are ready that do not end by themselves."""
        for one in OWN:
            if one["kind"] in {"Deployment", "StatefulSet"}:
                what = f"{one['kind'].lower()}/{one['metadata']['name']}"
                words = ("rollout", "status", what, f"--timeout={UP_TIMEOUT_S}s")
                self.kubectl(*words, timeout=UP_TIMEOUT_S + 30)

    def said(self) -> str:
        """Return how the pods are, and the end of their events."""
        pods = self.kubectl("get", "pods", "-o", "wide")
        events = self.kubectl("get", "events", "--sort-by=.lastTimestamp")
        return f"{pods}\n{events[-4000:]}"

    def pods(self, app: str, phase: str = "Running") -> list[dict[str, Any]]:
        """Return the pods of an app in a phase."""
        found = self.kubectl(
            *("get", "pods", f"--selector=app={app}", f"--field-selector=status.phase={phase}"),
            *("-o", "json"),
        )
        return json.loads(found)["items"]

    def kill(self, pod: dict[str, Any]) -> None:
        """Delete a pod, and have its processes killed at once."""
        self.kubectl("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0")

    def exec(self, *words: str) -> str:
        """Run a command in the code server's pod."""
        return self.kubectl("exec", "deployment/code", "--", *words, timeout=300)

    @contextmanager
    def forwarded(self, what: str, port: int) -> Generator[None]:
        """Have a port of a service on the node's loopback."""
        server = self.node.server
        words = ("port-forward", f"--namespace={NAMESPACE}", what, str(port))
        command = server.command("kubectl", f"--kubeconfig={server.kubeconfig}", *words)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forwarding:
            assert forwarding.stdout
            try:
                assert "Forwarding" in forwarding.stdout.readline()
                yield
            finally:
                forwarding.terminate()

    def wait_for(self, condition: Callable[[], T | None], timeout_s: float, what: str) -> T:
        """Wait as `wait_until` does, and ask again if what is asked does not answer now."""
        unanswered: list[Exception] = []

        def ask() -> T | None:
            try:
                return condition()
            except (AssertionError, subprocess.TimeoutExpired) as error:
                # A pod that starts, or a machine that is busy.
                unanswered[:] = [error]
                return None

        try:
            answer = wait_until(ask, timeout_s, what)
        except AssertionError as error:
            msg = f"{error}; {unanswered}\n{self.said()}"
            raise AssertionError(msg) from error
        assert answer
        return answer

    def runs(self) -> list[dict[str, Any]]:
        """Return all runs, newest first."""
        answer = self.exec("python", "-c", RUNS)
        return json.loads(answer.rpartition("runs:")[2])

    def failed(self) -> int:
        """Count the runs that have failed so far."""
        return sum(one["status"] == "FAILURE" for one in self.runs())

    def status_text(self, *options: str) -> str:
        """Return what the pipeline's own command says of it."""
        # It exits with 1 while a failed run is not made up for.
        words = ("exec", "deployment/code", "--", "resize-pipeline", "status", *options)
        done = self.node.server.kubectl(f"--namespace={NAMESPACE}", *words, timeout=300)
        assert done.stdout, done.stderr[-2000:]
        return done.stdout

    def status(self) -> dict[str, Any]:
        """Return the pipeline's own status."""
        return json.loads(self.status_text("--json"))

    def settled(self) -> dict[str, Any]:
        """Wait until nothing is left to do, and return the pipeline's own status."""

        def status() -> dict[str, Any] | None:
            found = self.status()
            time.sleep(2)
            is_settled = found["lag"] == 0 and not found["unfinished_count"]
            return found if is_settled else None

        return self.wait_for(status, SETTLED_TIMEOUT_S, "lag 0 and no unfinished run")

    def make_up(self) -> int:
        """Reconcile if `status` lists runs that failed for good; return how many it lists."""
        found = self.settled()
        failed = found["failed_count"] - found["healed_count"]
        if failed:
            self.reconcile()
        return failed

    def reconcile(self) -> None:
        """Launch what the schedule of the reconciliation launches, in the pod of the UI."""
        inside = ("exec", "deployment/webserver", "--", "env", "UI_HOST=127.0.0.1")
        self.kubectl(*inside, "resize-pipeline", "reprocess", "--prefix", "", timeout=300)

    def judged(
        self,
        count: int,
        *,
        pause_s: float = 0.0,
        begun: int = 1,
        first: Callable[[], None] = lambda: None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """Upload photographs, and judge what became of them.

        What runs left that failed for good is made by a reconciliation, as on the hour: `status`
        must list them.

        Args:
            count: how many; some are uploaded again.
            pause_s: how long each of the uploading threads waits after an upload.
            begun: how many renditions are to be there before what is done meanwhile.
            first: is done once the upload has begun.
            meanwhile: is done while photographs are under way.
        """
        given = (f"{uuid.uuid4().hex[:8]}/", str(count), str(pause_s), str(begun))
        with subprocess.Popen(
            self.node.python("tests.kubernetes.judge", *given),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as judge:
            assert judge.stdout
            try:
                assert judge.stdout.readline() == "uploading\n", self._why(judge)
                first()
                assert judge.stdout.readline() == "under way\n", self._why(judge)
                meanwhile()
                assert judge.stdout.readline() == "uploaded\n", self._why(judge)
                made_up_for = self.make_up()
                assert judge.stdout.readline() == "made\n", self._why(judge)
                self.settled()
                out, errors = judge.communicate("\n", timeout=JUDGED_TIMEOUT_S)
            finally:
                judge.kill()
        assert judge.returncode == 0, errors[-3000:]
        return json.loads(out) | {"made up for": made_up_for}

    def _why(self, judge: subprocess.Popen[str]) -> str:
        judge.kill()
        assert judge.stderr
        return f"{judge.stderr.read()[-3000:]}\n{self.said()}"
