"""Descriptions made by hand, in the shape of a network: a uint8 picture to named B×C×H×W grids."""

from models.handmade.colour import Colour
from models.handmade.operation import Operation
from models.handmade.sift import Sift

__all__ = ["Colour", "Operation", "Sift"]
