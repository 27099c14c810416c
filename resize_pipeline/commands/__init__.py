"""What the commands of `resize-pipeline` do: read the settings' servers and files, print results.

`cli.py` declares the commands and imports each module only when its command runs. What the pipeline
itself does, and what the local stack does, is elsewhere.
"""
