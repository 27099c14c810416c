"""Configures the Celery workers; dagster-celery finds this module on PYTHONPATH by its name."""

from celery.signals import worker_process_init

from resize_pipeline.resources.renderer import keep_children
from resize_pipeline.secret_files import variable

broker_url = variable("CELERY_BROKER_URL")
if broker_url is None:
    msg = "CELERY_BROKER_URL is not set: export it, or put it into a file in SECRETS_DIR"
    raise SystemExit(msg)
result_backend = broker_url

# Loaded before the pool forks, so that every child starts warm, even one that replaces a killed
# child.
imports = ("resize_pipeline.definitions",)

# Each run has its own process, which can be killed alone; its worker reports that at once.
worker_pool = "prefork"
worker_concurrency = 1
worker_max_tasks_per_child = 100

# A busy worker leaves the next run to an idle one. A run leaves the broker as soon as it begins, so
# that only Dagster repeats it and the broker never does.
worker_disable_prefetch = True
worker_prefetch_multiplier = 1
task_acks_late = False
# Longer than max_runtime_seconds in dagster.yaml.
broker_transport_options = {"visibility_timeout": 10800}

broker_connection_retry_on_startup = True
broker_connection_max_retries = None
worker_cancel_long_running_tasks_on_connection_loss = False

# Dagster captures the output of runs itself, down to the file descriptors.
worker_redirect_stdouts = False


@worker_process_init.connect
def _(**_: object) -> None:
    # The rendering children stay from one run to the next, as the definitions do.
    keep_children()
