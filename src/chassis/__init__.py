"""A microservice chassis: discovery, balancing, failover, breakers, configuration, telemetry, gateway."""
