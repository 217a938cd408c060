"""What certificates say: the distribution of p_A first, and ACR only beside it."""

from acr_ray.reporting.opening import Assumptions, open_source, open_sources
from acr_ray.reporting.report import Report, Row, build_report
from acr_ray.reporting.source import Source
from acr_ray.reporting.summary import summary
from acr_ray.reporting.tables import comparison_table
from acr_ray.reporting.writing import write_report

__all__ = [
    "Assumptions",
    "Report",
    "Row",
    "Source",
    "build_report",
    "comparison_table",
    "open_source",
    "open_sources",
    "summary",
    "write_report",
]
