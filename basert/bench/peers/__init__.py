"""basert beside the servers one would take instead: installed, started and measured by one client."""
