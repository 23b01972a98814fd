"""The report: results on one page."""

from feedalign.extras import needs

with needs("lab", __name__):
    from feedalign.lab.report.page import write_report
    from feedalign.lab.report.sections import Result

__all__ = ["Result", "write_report"]
