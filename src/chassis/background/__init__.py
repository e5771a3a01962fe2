"""The process's one background thread with an asyncio loop.

Everything that does I/O on its own (watches, heartbeats, sessions, shipping) has one async
implementation and runs here, so that Flask, Django and scripts are served by the same code as
async applications. The thread starts with the first task, and anew after a fork.
"""

from chassis.background._loop import Background, Job, background

__all__ = ["Background", "Job", "background"]
