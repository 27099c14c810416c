"""Creates the pipeline's MinIO user with least privileges."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any

from resize_pipeline.environment import CREDENTIALS_FILE
from resize_pipeline.errors import UserError
from resize_pipeline.passwords import new_secret
from resize_pipeline.provisioning.admin import AdminError, DeniedError, Server, refusal
from resize_pipeline.provisioning.catalog_policy import with_catalog
from resize_pipeline.provisioning.credentials import (
    ACCESS_KEY,
    SECRET_KEY,
    read_credentials,
    written_credentials,
)
from resize_pipeline.provisioning.made import Made
from resize_pipeline.provisioning.policy import (
    policy_document,
    policy_name,
    same_policy,
    widened,
)
from resize_pipeline.provisioning.steps import ALIAS, Report, Step, changed, mc_commands
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class UserSpec:
    """The user as the settings want it.

    Attributes:
        name: its access key.
        secret: its secret key; None if the settings hold none.
        policy: what it may do.
        destination: file that receives a new secret; None if a new secret is shown once.
        is_destination_chosen: whether the operator named that file, which then receives the
            credentials in any case.
        is_administrator: whether the settings run the pipeline as MINIO_ROOT_USER.
    """

    name: str
    secret: str | None = field(repr=False)
    policy: dict[str, Any]
    destination: Path | None
    is_destination_chosen: bool
    is_administrator: bool

    @property
    def credentials(self) -> tuple[str, str | None]:
        """Access key and secret key."""
        return self.name, self.secret


class UserAction(Enum):
    """What provisioning does about the user."""

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
    """Return what to do about the user.

    Args:
        exists: MinIO has an internal user of that name.
        authenticates: the secret of the settings works.
        own_secret: the settings hold a secret that is not from the credentials file.
        has_destination: a new secret goes to a file that the pipeline reads.
        would_overwrite: that file holds other credentials.
    """
    if authenticates:
        # Not an internal user: a service account, or a user from LDAP.
        return UserAction.KEEP if exists else UserAction.KEEP_FOREIGN
    if own_secret and would_overwrite:
        return UserAction.WRONG_CREDENTIALS
    if not exists:
        return UserAction.CREATE
    if own_secret:
        return UserAction.WRONG_SECRET
    # A new secret stops pipelines that use the old one, unless they read it from the file.
    return UserAction.NEW_SECRET if has_destination else UserAction.ASK


def user_spec(
    settings: Settings, renditions: Sequence[Rendition], credentials_file: Path | None
) -> UserSpec:
    """Return the user as the settings want it.

    Args:
        settings: hold the user's access key and secret key, if there are any.
        renditions: what the user must be able to write.
        credentials_file: receives a new secret. By default it goes to a file in LOCAL_DIR if
            MinIO is local, and is otherwise shown once.
    """
    access_key, secret_key = settings.minio_access_key, settings.minio_secret_key
    destination = credentials_file
    if destination is None and settings.runs_local_minio:
        destination = settings.local_dir / CREDENTIALS_FILE
    name = settings.pipeline_name if access_key is None else access_key.get_secret_value()
    return UserSpec(
        name=name,
        secret=None if secret_key is None else secret_key.get_secret_value(),
        policy=with_catalog(
            # A server that `up` starts has no other tenants whose secrets its environment could
            # hold.
            policy_document(
                settings.source_bucket, renditions, sees_server=settings.runs_local_minio
            ),
            settings,
        ),
        destination=destination,
        is_destination_chosen=credentials_file is not None,
        is_administrator=name == settings.minio_root_user.get_secret_value(),
    )


def ensure_user(
    user: UserSpec, server: Server, made: Made, report: Report, *, dry_run: bool
) -> None:
    """Create the user, its secret and its policy, or change what differs.

    Args:
        user: the user as it must be.
        server: the MinIO server.
        made: what this pipeline made on it.
        report: called with each step.
        dry_run: change nothing.

    Raises:
        TransientError: MinIO is unreachable.
        UserError: the user's name or secret can't be used, or another pipeline made the user or
            its policy.
    """
    if user.is_administrator:
        report(
            Step(
                "warning",
                f"user {user.name}: the pipeline runs as MINIO_ROOT_USER; unset {ACCESS_KEY} and "
                f"{SECRET_KEY} to get a user with least privileges",
            )
        )
        return
    authenticates = user.secret is not None and server.authenticates(user.name, user.secret)
    try:
        attached = _attached_policies(server, user.name)
        action = _action(user, exists=attached is not None, authenticates=authenticates)
        if action is UserAction.KEEP_FOREIGN:
            report(Step("ok", f"user {user.name}: not an internal user of MinIO, used as it is"))
            return
        if action is UserAction.KEEP and user.is_destination_chosen:
            _store(user, report, dry_run=dry_run)
        _refuse_wrong(server, action, user)
        if action is UserAction.NEW_SECRET:
            made.check(
                f"user {user.name!r} has a secret that is unknown here",
                # Nobody can read a secret to see whether it is still the one that was made here.
                is_ours=False,
                effect="pipelines that use the old secret stop",
            )
        _ensure_policy(server, user, made, report, dry_run=dry_run)
        _apply(server, action, user, report, dry_run=dry_run)
        _attach_policy(server, user, attached or (), report, dry_run=dry_run)
    except DeniedError as error:
        report(_denied(server, user, error, authenticates=authenticates))
    except AdminError as error:
        msg = (
            f"MinIO at {server.endpoint} does not accept user {user.name!r} ({error.message}): "
            "change MINIO_ACCESS_KEY or MINIO_SECRET_KEY"
        )
        raise UserError(msg) from error


def _action(user: UserSpec, *, exists: bool, authenticates: bool) -> UserAction:
    stored = read_credentials(user.destination)
    return user_action(
        exists=exists,
        authenticates=authenticates,
        own_secret=user.secret is not None and stored != user.credentials,
        has_destination=user.destination is not None,
        would_overwrite=stored is not None and stored != user.credentials,
    )


def _denied(server: Server, user: UserSpec, error: DeniedError, *, authenticates: bool) -> Step:
    if authenticates:
        return Step("ok", f"user {user.name}: authenticates, but may not see its policy")
    if not error.code and server.has_root_password:
        return Step(
            "needs administrator",
            f"user {user.name}: {refusal(server, error)}; an administrator must create a user with "
            f"this policy by the server's own tools, and give you {ACCESS_KEY} and {SECRET_KEY}",
            tuple(json.dumps(user.policy, indent=2).splitlines()),
        )
    return Step(
        "needs administrator",
        f"user {user.name}: {refusal(server, error)}; an administrator must run, and give you "
        f"{ACCESS_KEY} and {SECRET_KEY}",
        mc_commands(server.endpoint, *admin_commands(user.name, user.policy)),
    )


def admin_commands(user: str, policy: dict[str, Any]) -> tuple[str, ...]:
    """Return the commands that create the user. `mc` asks for its secret."""
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
    """Return the user's policies; None if MinIO has no internal user of that name."""
    try:
        answer = server.call_json(server.admin.user_info, user)
    except DeniedError:
        raise
    except AdminError as error:
        # MinIO answers the second code for a service account.
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
    server: Server, user: UserSpec, made: Made, report: Report, *, dry_run: bool
) -> None:
    name = policy_name(user.name)
    actual: object = None
    try:
        actual = server.call_json(server.admin.policy_info, name)
    except DeniedError:
        raise
    except AdminError as error:
        if error.code != "XMinioAdminNoSuchPolicy":
            raise
    recorded = made.value(f"policy {name}")
    is_ours = made.takes_over or same_policy(actual, recorded)
    policy = user.policy if is_ours else widened(user.policy, actual)
    if same_policy(actual, policy):
        report(Step("ok", f"policy {name}"))
    else:
        if not dry_run:
            server.call(server.admin.policy_add, name, policy=policy)
            # A policy that holds what others need is not ours to narrow next time.
            made.remember(f"policy {name}", user.policy)
        verb = "create" if actual is None else "change"
        report(changed(f"policy {name}: {verb}", dry_run=dry_run))
    if not same_policy(policy, user.policy):
        report(
            Step(
                "warning",
                f"policy {name} also allows what the specs do not need, which another pipeline may "
                "need; if none does, narrow it with",
                ("resize-pipeline provision --take-over",),
            )
        )


def _attach_policy(
    server: Server, user: UserSpec, attached: Sequence[str], report: Report, *, dry_run: bool
) -> None:
    name = policy_name(user.name)
    if name in attached:
        report(Step("ok", f"policy {name} of user {user.name}"))
        return
    if not dry_run:
        server.call(server.admin.attach_policy, [name], user=user.name)
    report(changed(f"policy {name}: attach to user {user.name}", dry_run=dry_run))


def _store(user: UserSpec, report: Report, *, dry_run: bool) -> None:
    path = user.destination
    if path is None or user.secret is None or read_credentials(path) == user.credentials:
        return
    if not dry_run:
        with written_credentials(path, user.name, user.secret):
            pass
    report(changed(f"{path}: credentials of user {user.name}, mode 0600", dry_run=dry_run))


def _refuse_wrong(server: Server, action: UserAction, user: UserSpec) -> None:
    """Refuse credentials that do not work, before anything is changed for them.

    Raises:
        UserError: they do not work; the message holds the remedy.
    """
    if action is UserAction.WRONG_SECRET:
        msg = (
            f"MinIO at {server.endpoint} refuses user {user.name!r} with this {SECRET_KEY}: "
            "correct it, or unset it and run `resize-pipeline provision --take-over "
            "--credentials-file .env` for a new one, which stops pipelines that use the old one"
        )
        raise UserError(msg)
    if action is UserAction.WRONG_CREDENTIALS:
        msg = (
            f"MinIO at {server.endpoint} refuses user {user.name!r} with the {ACCESS_KEY} and "
            f"{SECRET_KEY} of the environment or .env: remove both there to use those in "
            f"{user.destination}, or correct them"
        )
        raise UserError(msg)


def _apply(
    server: Server, action: UserAction, user: UserSpec, report: Report, *, dry_run: bool
) -> None:
    if action is UserAction.KEEP:
        report(Step("ok", f"user {user.name}"))
    elif action is UserAction.ASK:
        report(
            Step(
                "needs administrator",
                f"user {user.name} exists, but its secret is not known here: set {ACCESS_KEY} and "
                f"{SECRET_KEY}, or give the user a new secret, which stops pipelines that use the "
                "old one, with",
                ("resize-pipeline provision --take-over --credentials-file .env",),
            )
        )
    else:
        report(_set_secret(server, action, user, dry_run=dry_run))


def _set_secret(server: Server, action: UserAction, user: UserSpec, *, dry_run: bool) -> Step:
    """Create the user, with its secret if the settings hold one, or give it a new secret."""
    chosen = user.secret if action is UserAction.CREATE else None
    secret = chosen or new_secret()
    if not dry_run:
        with (
            nullcontext()
            if user.destination is None
            else written_credentials(user.destination, user.name, secret)
        ):
            server.call(server.admin.user_add, user.name, secret)
    what = f"user {user.name}: {'create' if action is UserAction.CREATE else 'new secret'}"
    if action is not UserAction.CREATE:
        what = f"{what}, for which pipelines that run must be restarted"
    if user.destination is not None:
        return changed(f"{what}, credentials in {user.destination}, mode 0600", dry_run=dry_run)
    step = changed(what, dry_run=dry_run)
    # Whoever chose the secret knows it already.
    if chosen is not None:
        return step
    shown = "***" if dry_run else secret
    return replace(
        step,
        what=f"{step.what}; keep these, they are shown only once",
        lines=(f"{ACCESS_KEY}={user.name}", f"{SECRET_KEY}={shown}"),
    )
