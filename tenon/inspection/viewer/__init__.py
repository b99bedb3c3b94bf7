"""The page of a dump: every stage of a program in one HTML file, to be looked through in a browser; and pictures."""

from tenon.inspection.viewer.page import page
from tenon.inspection.viewer.picture import picture, to_dot, to_svg
from tenon.inspection.viewer.record import record

__all__ = ["page", "picture", "record", "to_dot", "to_svg"]
