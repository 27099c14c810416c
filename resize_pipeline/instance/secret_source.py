"""The type of a value in dagster.yaml that is a secret, from a variable or from a file."""

from typing import Any

from resize_pipeline.instance.internals import StringSourceType
from resize_pipeline.secret_files import variable


class SecretSourceType(StringSourceType):
    """As Dagster's own `{env: NAME}`, and if that is unset, the secret of that name."""

    def post_process(self, value: Any) -> str:
        """Return the value of the variable or of the file."""
        found = variable(value["env"]) if isinstance(value, dict) else None
        return super().post_process(value) if found is None else found


SecretSource = SecretSourceType()
