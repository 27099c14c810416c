"""The sensors: runs for new Kafka messages, follow-up runs, and notices to the webhook.

How a backlog is cut into runs belongs to `kafka/backlog.py`.
"""
