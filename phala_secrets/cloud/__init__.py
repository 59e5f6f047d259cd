"""Phala Cloud's API, sync and async."""
