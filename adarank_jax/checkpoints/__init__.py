"""Bytes on disk to parameters and back."""
