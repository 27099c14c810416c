"""The notices that are posted to the webhook, as JSON. Pure.

Slack and Mattermost show `text`; the other fields are for programs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from resize_pipeline.errors import escaped, one_line
from resize_pipeline.kafka.dead_letters import DeadLetter

KEYS_SHOWN = 10
KEY_MAX = 200
"""Most characters of a key that are shown; S3 allows 1024 bytes."""
REASONS_SHOWN = 5


def failed_run_notice(
    *, run_id: str, job: str, partition: str | None, error: str, url: str
) -> dict[str, object]:
    """Return the notice of a run that failed and that Dagster does not retry.

    Args:
        run_id: id of the run.
        job: name of its job.
        partition: key of its partition, None if it has none.
        error: the message it failed with.
        url: address of the run in the UI.
    """
    line = one_line(error)
    where = f" of partition {_code(partition)}" if partition else ""
    return {
        "text": f"Run `{run_id[:8]}` of `{job}`{where} failed for good: {_code(line)} {url}",
        "run_id": run_id,
        "job": job,
        "partition": partition,
        "error": line,
        "url": url,
    }


def dead_letters_notice(letters: Sequence[DeadLetter]) -> dict[str, object]:
    """Return the notice of new dead letters.

    Args:
        letters: the new ones, in the order of the topic; at least one.
    """
    keys = [_shortened(escaped(letter.key)) for letter in letters[:KEYS_SHOWN]]
    counts = Counter(letter.error_class or "unknown" for letter in letters)
    examples = {letter.error_class or "unknown": letter for letter in reversed(letters)}
    reasons: list[Mapping[str, str | int]] = [
        {
            "error_class": one_line(name),
            "count": count,
            "example": one_line(examples[name].error_message),
        }
        for name, count in counts.most_common(REASONS_SHOWN)
    ]
    more = f" and {len(letters) - len(keys)} more" if len(letters) > len(keys) else ""
    plural = "" if len(letters) == 1 else "s"
    lines = [f"{len(letters)} new dead letter{plural}: {', '.join(map(_code, keys))}{more}"]
    for reason in reasons:
        name, example = _code(str(reason["error_class"])), _code(str(reason["example"]))
        lines.append(f"{reason['count']} x {name}, such as {example}")
    lines.append("`resize-pipeline dead-letters list` shows all")
    return {
        "text": "\n".join(lines),
        "new_dead_letters": len(letters),
        "first_keys": keys,
        "reasons": reasons,
    }


def silence_notice(problem: str, bucket: str) -> dict[str, object]:
    """Return the notice that pictures have no events, or have them again.

    Args:
        problem: what is wrong; empty if nothing is any more.
        bucket: the source bucket.
    """
    text = f"Pictures have no events: {_code(problem)}"
    return {
        "text": text if problem else f"Pictures in {_code(bucket)} have events again",
        "bucket": bucket,
        "problem": problem or None,
    }


def _shortened(key: str) -> str:
    return key if len(key) <= KEY_MAX else f"{key[: KEY_MAX - 3]}..."


def _code(text: str) -> str:
    # Whoever uploads chooses the keys. Code mentions nobody, but even there Slack reads text in <>
    # as links and mentions (docs.slack.dev/messaging/formatting-message-text).
    plain = text.replace("`", "'")
    return f"`{plain.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')}`"
