"""The page of a dump: every stage of a program in one HTML file, to be looked through in a browser; and pictures."""

from tenon.viewer.page import page
from tenon.viewer.picture import picture, to_dot, to_svg
from tenon.viewer.record import record

__all__ = ["page", "picture", "record", "to_dot", "to_svg"]
