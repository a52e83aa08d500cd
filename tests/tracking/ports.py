"""What a kernel says that lost a port, no fault of what is tested: whoever started it starts it once more.

Jupyter chooses ports a second before the kernel binds them, and other tests start kernels at the same time.
"""

PORT_TAKEN = "zmq.error.ZMQError: Address already in use"
