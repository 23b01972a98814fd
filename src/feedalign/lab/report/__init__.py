"""The report: results on one page."""

from feedalign.lab.report.page import Result, write_report

__all__ = ["Result", "write_report"]
