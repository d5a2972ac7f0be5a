"""`GET /v1/networks`: what can be extracted."""

from fastapi import APIRouter

from models import geometry, zoo
from service.forms import problems
from service.routes import EngineDep
from service.schemas.networks import LayerBody, NetworkBody, NetworksBody

router = APIRouter(prefix="/v1", tags=["networks"])


@router.get("/networks")
def list_networks(engine: EngineDep) -> NetworksBody:
    """The networks whose layers have names in the literature, and the names of all others."""
    return NetworksBody(
        networks=[_body(engine, name) for name, row in zoo.NETWORKS.items() if row.layers],
        others=[name for name in zoo.names() if name not in zoo.NETWORKS],
    )


@router.get("/networks/{network}", responses=problems(404))
def get_network(engine: EngineDep, network: str) -> NetworkBody:
    """One network with its layers: the literature's names, or else every node."""
    return _body(engine, network)


def _body(engine: EngineDep, name: str) -> NetworkBody:
    row = zoo.network(name)
    layers = geometry.layers(name)
    return NetworkBody(
        name=name,
        levels={level: f"{name}/{layer}" for level, layer in row.levels.items()},
        weights=engine.weights.at_hand(name),
        pinned=row.weights,
        layers=[
            LayerBody(
                name=layer.name,
                node=layer.node,
                level=layer.level,
                channels=layer.channels,
                stride=layer.stride,
                receptive_field=layer.receptive_field,
            )
            for layer in (layers[named] for named in row.layers or layers)
        ],
    )
