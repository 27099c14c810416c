"""Makes the passwords and secret keys that nobody chose."""

import secrets

SECRET_BYTES = 24
"""Random bytes of a new secret. They make 32 characters, and MinIO accepts 8 to 40."""


def new_secret() -> str:
    """Return a random secret key or password."""
    return secrets.token_urlsafe(SECRET_BYTES)
