"""Plugins for papermill and pytest (nbval): they pass notebook and execution to the kernel."""
