"""A worker without HTTP of its own: signals, a health port, drain and flush."""

from chassis import Chassis, log

chassis = Chassis("poller")


@chassis.task(every=0.5)
async def poll() -> None:
    log.info("polled")


if __name__ == "__main__":
    chassis.run()
