"""What all tests need."""

import signal

# A shell that starts a command in the background may have it ignore Ctrl-C, and Python then leaves
# it so; tests that send one would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
