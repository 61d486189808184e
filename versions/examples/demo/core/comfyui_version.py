"""The version of ComfyUI whose behaviour this core follows."""

__version__ = "0.3.64"
