"""The pipeline's own MinIO user, with the least rights that it can work with."""

import json
import secrets
from collections.abc import Sequence
from contextlib import nullcontext
from enum import Enum, auto
from pathlib import Path
from typing import Any, cast

from resize_pipeline.environment import CREDENTIALS_FILE
from resize_pipeline.errors import UserError
from resize_pipeline.provisioning.admin import AdminError, DeniedError, Server, refusal
from resize_pipeline.provisioning.credentials import (
    ACCESS_KEY,
    SECRET_KEY,
    read_credentials,
    written_credentials,
)
from resize_pipeline.provisioning.steps import ALIAS, Report, Step, changed, mc_commands
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.settings import Settings

USER = "resize-pipeline"
SECRET_BYTES = 24
"""Random bytes of a new secret: 32 characters, of the 8 to 40 that MinIO takes."""


def policy_name(user: str) -> str:
    """Give the name of a user's policy: one for each, as two pipelines have other buckets."""
    return user if user == USER else f"{USER}-{user}"


def policy_document(source_bucket: str, renditions: Sequence[Rendition]) -> dict[str, Any]:
    """Give the policy: read the source, write the renditions, nothing else.

    Objects are scoped to the prefix of a rendition. Listing is not: without it a missing object
    looks like a forbidden one.
    """
    buckets = sorted({one.bucket for one in renditions})
    objects = sorted({f"{one.bucket}/{one.prefix}*" for one in renditions})
    statements: list[dict[str, Any]] = []
    for actions, resources in (
        (["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketVersions"], [source_bucket]),
        (["s3:GetObject", "s3:GetObjectVersion"], [f"{source_bucket}/*"]),
        (["s3:GetBucketLocation", "s3:ListBucket"], buckets),
        (
            ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"],
            objects,
        ),
    ):
        statements.append(
            {
                "Effect": "Allow",
                "Action": actions,
                "Resource": [f"arn:aws:s3:::{resource}" for resource in resources],
            }
        )
    return {"Version": "2012-10-17", "Statement": statements}


def same_policy(one: object, two: object) -> bool:
    """Tell whether two policies say the same; servers sort actions and resources."""
    return _canonical(one) == _canonical(two)


def _canonical(value: object) -> object:
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return sorted((key, repr(_canonical(item))) for key, item in items)
    if isinstance(value, list):
        return sorted(repr(_canonical(item)) for item in cast("list[object]", value))
    return value


class UserAction(Enum):
    """What to do about the user."""

    KEEP = auto()
    KEEP_FOREIGN = auto()
    CREATE = auto()
    NEW_SECRET = auto()
    ASK = auto()
    WRONG_SECRET = auto()
    WRONG_CREDENTIALS = auto()


def user_action(
    *,
    exists: bool,
    authenticates: bool,
    own_secret: bool,
    has_destination: bool,
    would_overwrite: bool,
) -> UserAction:
    """Decide what to do about the user.

    Args:
        exists: MinIO has an internal user of that name.
        authenticates: the secret that we hold works.
        own_secret: a secret is set that did not come from the credentials file.
        has_destination: there is a file for a new secret that the pipeline reads.
        would_overwrite: that file holds other credentials.
    """
    if authenticates:
        # Without an internal user it is a service account, or a user of LDAP.
        return UserAction.KEEP if exists else UserAction.KEEP_FOREIGN
    if own_secret and would_overwrite:
        return UserAction.WRONG_CREDENTIALS
    if not exists:
        return UserAction.CREATE
    if own_secret:
        return UserAction.WRONG_SECRET
    # A new secret stops whatever runs with the old one: only where it can be found by those.
    return UserAction.NEW_SECRET if has_destination else UserAction.ASK


def ensure_user(
    settings: Settings,
    renditions: Sequence[Rendition],
    server: Server,
    credentials_file: Path | None,
    report: Report,
    *,
    dry_run: bool,
) -> None:
    """Make the user, its secret and its policy.

    Args:
        settings: access key and secret key, if any, are the user's.
        renditions: what it must be able to write.
        server: where it is.
        credentials_file: where a new secret goes; None: LOCAL_DIR when MinIO is a local one,
            otherwise it is shown once.
        report: takes the steps.
        dry_run: change nothing.

    Raises:
        TransientError: MinIO can't be reached.
        UserError: the user's name or secret can't be used.
    """
    access_key, secret_key = settings.minio_access_key, settings.minio_secret_key
    user = USER if access_key is None else access_key.get_secret_value()
    secret = None if secret_key is None else secret_key.get_secret_value()
    policy = policy_document(settings.source_bucket, renditions)
    if user == settings.minio_root_user.get_secret_value():
        report(
            Step(
                "warning",
                f"user {user}: the pipeline runs as MINIO_ROOT_USER; unset {ACCESS_KEY} and "
                f"{SECRET_KEY} to have a user with the least rights",
            )
        )
        return
    destination = credentials_file
    if destination is None and settings.runs_local_minio:
        destination = settings.local_dir / CREDENTIALS_FILE
    stored = read_credentials(destination)
    authenticates = secret is not None and server.authenticates(user, secret)
    try:
        attached = _attached_policies(server, user)
        action = user_action(
            exists=attached is not None,
            authenticates=authenticates,
            own_secret=secret is not None and stored != (user, secret),
            has_destination=destination is not None,
            would_overwrite=stored is not None and stored != (user, secret),
        )
        if action is UserAction.KEEP_FOREIGN:
            report(Step("ok", f"user {user}: not an internal user of MinIO, used as it is"))
            return
        if action is UserAction.KEEP and credentials_file is not None:
            _store(report, credentials_file, user, secret or "", dry_run=dry_run)
        _refuse_wrong(server, action, user, destination)
        _ensure_policy(server, policy_name(user), policy, report, dry_run=dry_run)
        _apply(server, action, user, secret, destination, report, dry_run=dry_run)
        if policy_name(user) in (attached or ()):
            report(Step("ok", f"policy {policy_name(user)} of user {user}"))
        else:
            if not dry_run:
                server.call(server.admin.attach_policy, [policy_name(user)], user=user)
            report(changed(f"policy {policy_name(user)}: attach to user {user}", dry_run=dry_run))
    except DeniedError as error:
        if authenticates:
            report(Step("ok", f"user {user}: authenticates; without rights to see its policy"))
            return
        report(
            Step(
                "needs administrator",
                f"user {user}: {refusal(server, error)}; an administrator runs, and gives you "
                f"{ACCESS_KEY} and {SECRET_KEY}",
                mc_commands(server.endpoint, *admin_commands(user, policy)),
            )
        )
    except AdminError as error:
        msg = (
            f"MinIO at {server.endpoint} does not take user {user!r} ({error.message}): "
            "change MINIO_ACCESS_KEY or MINIO_SECRET_KEY"
        )
        raise UserError(msg) from error


def admin_commands(user: str, policy: dict[str, Any]) -> tuple[str, ...]:
    """Give the commands that make the user; `mc` asks for its secret."""
    name = policy_name(user)
    return (
        f"cat > {name}.json <<'EOF'",
        *json.dumps(policy, indent=2).splitlines(),
        "EOF",
        f"mc admin policy create {ALIAS} {name} {name}.json",
        f"mc admin user add {ALIAS} {user}",
        f"mc admin policy attach {ALIAS} {name} --user {user}",
    )


def _attached_policies(server: Server, user: str) -> list[str] | None:
    """Give the user's policies; None when MinIO has no internal user of that name."""
    try:
        answer = cast("dict[str, Any]", json.loads(server.call(server.admin.user_info, user)))
    except DeniedError:
        raise
    except AdminError as error:
        # The second one is MinIO's answer for a service account.
        if error.code in {"XMinioAdminNoSuchUser", "XMinioIAMActionNotAllowed"}:
            return None
        raise
    if answer.get("status") == "disabled":
        msg = (
            f"MinIO at {server.endpoint}: user {user!r} is disabled: "
            f"`mc admin user enable {ALIAS} {user}`, or change MINIO_ACCESS_KEY"
        )
        raise UserError(msg)
    return [name for name in str(answer.get("policyName", "")).split(",") if name]


def _ensure_policy(
    server: Server, name: str, policy: dict[str, Any], report: Report, *, dry_run: bool
) -> None:
    actual: object = None
    try:
        actual = json.loads(server.call(server.admin.policy_info, name))
    except DeniedError:
        raise
    except AdminError as error:
        if error.code != "XMinioAdminNoSuchPolicy":
            raise
    if same_policy(actual, policy):
        report(Step("ok", f"policy {name}"))
        return
    if not dry_run:
        server.call(server.admin.policy_add, name, policy=policy)
    report(changed(f"policy {name}: {'create' if actual is None else 'change'}", dry_run=dry_run))


def _store(report: Report, path: Path, user: str, secret: str, *, dry_run: bool) -> None:
    if read_credentials(path) == (user, secret):
        return
    if not dry_run:
        with written_credentials(path, user, secret):
            pass
    report(changed(f"{path}: credentials of user {user}, mode 0600", dry_run=dry_run))


def _refuse_wrong(server: Server, action: UserAction, user: str, stored: Path | None) -> None:
    """Refuse credentials that don't work, before anything is changed for them.

    Raises:
        UserError: they don't work; the message says what to do.
    """
    if action is UserAction.WRONG_SECRET:
        msg = (
            f"MinIO at {server.endpoint} refuses user {user!r} with this {SECRET_KEY}: correct "
            f"it, or unset it and run `resize-pipeline provision` again for a new one"
        )
        raise UserError(msg)
    if action is UserAction.WRONG_CREDENTIALS:
        msg = (
            f"MinIO at {server.endpoint} refuses user {user!r} with the {ACCESS_KEY} and "
            f"{SECRET_KEY} of the environment or .env: remove both there, so that those in "
            f"{stored} are used, or correct them"
        )
        raise UserError(msg)


def _apply(  # noqa: PLR0913
    server: Server,
    action: UserAction,
    user: str,
    secret: str | None,
    destination: Path | None,
    report: Report,
    *,
    dry_run: bool,
) -> None:
    match action:
        case UserAction.KEEP | UserAction.KEEP_FOREIGN:
            report(Step("ok", f"user {user}"))
        case UserAction.ASK:
            report(
                Step(
                    "needs administrator",
                    f"user {user} is there, and its secret is not known here: set "
                    f"{ACCESS_KEY} and {SECRET_KEY}, or give it a new secret, which stops "
                    "pipelines that use the old one, with",
                    ("resize-pipeline provision --credentials-file .env",),
                )
            )
        case _:
            given = secret if action is UserAction.CREATE else None
            value = given or secrets.token_urlsafe(SECRET_BYTES)
            what = "create" if action is UserAction.CREATE else "new secret"
            # A secret that the user of this command chose is where they keep it already.
            known = given is not None and destination is None
            where = "" if known else f", credentials in {destination}, mode 0600"
            if not dry_run:
                with (
                    nullcontext()
                    if destination is None
                    else written_credentials(destination, user, value)
                ):
                    server.call(server.admin.user_add, user, value)
            step = changed(f"user {user}: {what}{where if destination else ''}", dry_run=dry_run)
            if destination is None and given is None:
                shown = "***" if dry_run else value
                step = Step(
                    step.state,
                    f"{step.what}; keep these, they are shown only once",
                    (f"{ACCESS_KEY}={user}", f"{SECRET_KEY}={shown}"),
                )
            report(step)
