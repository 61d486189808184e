"""Bytes: entries, publishing, verifying and roots. Knows nothing of ComfyUI."""
