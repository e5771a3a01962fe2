"""One pattern alone, on a plain function: no service, no configuration."""

from chassis import CircuitBreaker, CircuitOpen

payments = CircuitBreaker("payments", failure_rate=0.5, consecutive_failures=3)


@payments
def charge(order: dict) -> str:
    raise ConnectionError("the payment provider does not answer")


if __name__ == "__main__":
    for attempt in range(5):
        try:
            charge({"id": attempt})
        except CircuitOpen as error:
            print(f"refused: {error}")
        except ConnectionError as error:
            print(f"failed: {error}")
