"""Figures of a server in Prometheus' text format."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Counters:
    """Sums since the start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = Counter[tuple[str, str, int]]()
        self._seconds = dict[str, float]()
        self._sums = Counter[str]()

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer, and how long it took."""
        with self._lock:
            self._requests[method, route, status] += 1
            self._seconds[route] = self._seconds.get(route, 0.0) + seconds

    def add(self, name: str, amount: int = 1) -> None:
        """Add to one of the sums `HELP` knows."""
        with self._lock:
            self._sums[name] += amount

    def text(self, gauges: Mapping[str, float]) -> str:
        """All figures; `gauges`: those of this moment, by their names in `GAUGES`."""
        with self._lock:
            requests, seconds = dict(self._requests), dict(self._seconds)
            sums = dict(self._sums)
        lines = [
            "# HELP gancolor_requests_total Answers by method, route and status.",
            "# TYPE gancolor_requests_total counter",
            *(
                f'gancolor_requests_total{{method="{method}",route="{route}",status="{status}"}}'
                f" {count}"
                for (method, route, status), count in sorted(requests.items())
            ),
            "# HELP gancolor_request_seconds_total Seconds that the answers of a route took.",
            "# TYPE gancolor_request_seconds_total counter",
            *(
                f'gancolor_request_seconds_total{{route="{route}"}} {total:.3f}'
                for route, total in sorted(seconds.items())
            ),
        ]
        for name, words in HELP.items():
            lines += [f"# HELP gancolor_{name} {words}", f"# TYPE gancolor_{name} counter"]
            lines.append(f"gancolor_{name} {sums.get(name, 0)}")
        for name, words in GAUGES.items():
            lines += [f"# HELP gancolor_{name} {words}", f"# TYPE gancolor_{name} gauge"]
            lines.append(f"gancolor_{name} {gauges[name]:g}")
        return "\n".join(lines) + "\n"


HELP = {
    "pictures_colored_total": "Pictures that were coloured.",
    "films_total": "Films that were taken to be coloured.",
    "pixels_colored_total": "Pixels of them.",
    "study_results_total": "Participants of the study whose results were taken.",
    "refused_total": "Requests that were told to come back because the line was full.",
}
"""The sums, with what they count."""

GAUGES = {
    "requests_present": "Requests that are received, wait or are coloured.",
    "requests_waiting": "Requests that wait for the network.",
    "films_present": "Films that are received, wait, are coloured or can be fetched.",
}
"""The figures of a moment, with what they say."""
