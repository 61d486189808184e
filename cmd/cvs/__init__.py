"""cvs, the ComfyUI version store: the command line and its commands."""
