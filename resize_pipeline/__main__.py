"""`python -m resize_pipeline` is `resize-pipeline`."""

from resize_pipeline.cli import main

if __name__ == "__main__":
    main()
