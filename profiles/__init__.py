"""Use: generations, views, environments and running ComfyUI."""
