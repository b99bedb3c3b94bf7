"""The page of a dump: every stage of a program in one HTML file, to be looked through in a browser."""

from tenon.viewer.page import page
from tenon.viewer.record import record

__all__ = ["page", "record"]
