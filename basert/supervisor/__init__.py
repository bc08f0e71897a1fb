"""The supervisor: starts, watches, restarts and drains engines and gunicorn."""
