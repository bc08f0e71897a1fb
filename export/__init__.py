"""Export: offline, from a checkpoint to an engine bundle. It knows no server."""
