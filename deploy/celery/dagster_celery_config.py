"""Settings of the Celery workers, found by dagster-celery on PYTHONPATH by this name."""

import os

from celery.signals import worker_process_init

from resize_pipeline.resources.renderer import keep_children

broker_url = os.environ["CELERY_BROKER_URL"]
result_backend = broker_url

# Loaded before the pool forks: each child is warm, one that replaces a killed one too.
imports = ("resize_pipeline.definitions",)

# A process of its own for each run: it can be killed alone, and its worker says so at once.
worker_pool = "prefork"
worker_concurrency = 1
worker_max_tasks_per_child = 100

# A busy worker leaves the next run to an idle one, and a run that is begun is not in the broker any
# more: it is Dagster that repeats it, and never the broker too.
worker_disable_prefetch = True
worker_prefetch_multiplier = 1
task_acks_late = False
# Above max_runtime_seconds of dagster.yaml.
broker_transport_options = {"visibility_timeout": 10800}

broker_connection_retry_on_startup = True
broker_connection_max_retries = None
worker_cancel_long_running_tasks_on_connection_loss = False

# Dagster captures what runs print, file descriptors and all.
worker_redirect_stdouts = False


@worker_process_init.connect
def _(**_: object) -> None:
    # What renders stays from one run to the next, as the definitions do.
    keep_children()
