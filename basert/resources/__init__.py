"""Falcon resources, one file per endpoint family: thin."""
