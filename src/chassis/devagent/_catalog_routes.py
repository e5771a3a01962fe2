"""``/v1/health/service/...`` and ``/v1/catalog/...``: what clients watch."""

from __future__ import annotations

from chassis.devagent import _views
from chassis.devagent._agent import DevAgent
from chassis.devagent._catalog import PASSING, Service
from chassis.devagent._errors import bad_request
from chassis.devagent._http import Query, Reading, Request, json_response, parse_bool


def health_service(agent: DevAgent, request: Request, name: str) -> Query:
    """The instances of a service with their checks; ``?passing`` and ``?tag`` leave some out."""
    if not name:
        bad_request("Missing service name")
    tags = _tags(request)
    only_passing = request.has("passing") and _passing(request.get("passing"))

    def read() -> Reading:
        catalog = agent.catalog
        instances = catalog.instances(name)
        chosen = [
            _views.health(each, catalog)
            for each in instances
            if _has(each, tags)
            and not (only_passing and any(check.status != PASSING for check in catalog.checks_of(each)))
        ]
        index = catalog.service_index(name)
        return Reading(index=index, found=bool(instances), response=json_response(chosen))

    return Query(domain="health", read=read, until_found=True)


def catalog_service(agent: DevAgent, request: Request, name: str) -> Query:
    """The instances of a service, whatever their health: a change of health ends no wait."""
    if not name:
        bad_request("Missing service name")
    tags = _tags(request)

    def read() -> Reading:
        catalog = agent.catalog
        chosen = [
            _views.catalog_service(each, catalog.node) for each in catalog.instances(name) if _has(each, tags)
        ]
        return Reading(index=catalog.service_index(name), response=json_response(chosen))

    return Query(domain="services", read=read)


def catalog_services(agent: DevAgent, _request: Request, _rest: str) -> Query:
    """The names of all services with their tags."""

    def read() -> Reading:
        catalog = agent.catalog
        return Reading(index=catalog.services_index, response=json_response(catalog.tags_by_service()))

    return Query(domain="services", read=read)


def catalog_nodes(agent: DevAgent, _request: Request, _rest: str) -> Query:
    """The one node there is."""

    def read() -> Reading:
        catalog = agent.catalog
        shown = [_views.node(catalog.node, catalog.nodes_index)]
        return Reading(index=catalog.nodes_index, response=json_response(shown))

    return Query(domain="services", read=read)


def _tags(request: Request) -> set[str]:
    return {tag.lower() for tag in request.query.get("tag", ()) if tag}


def _has(service: Service, tags: set[str]) -> bool:
    return tags <= {tag.lower() for tag in service.definition.tags}


def _passing(text: str) -> bool:
    passing = parse_bool(text or "true")
    if passing is None:
        bad_request("Invalid value for ?passing")
    return passing
