"""The report: results on one page."""

from feedalign.extras import needs

with needs("lab", __name__):
    from feedalign.lab.report.page import Result, write_report

__all__ = ["Result", "write_report"]
