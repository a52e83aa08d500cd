"""Plugins for papermill and pytest (nbval): they tell the kernel which notebook and execution it belongs to."""
