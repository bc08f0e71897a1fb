"""Wire types by endpoint: JSON -> checked struct; every 400 about a body comes from here."""
