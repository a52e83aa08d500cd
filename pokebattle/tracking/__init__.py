"""What makes every notebook execution a run: the kernel extension, the shipper, the papermill engine."""
