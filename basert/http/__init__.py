"""The HTTP side: gunicorn worker, app, what it knows of the models, and what concerns every request."""
