"""Figures of many runs: samples in groups, their medians, minima and maxima."""
import statistics
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of one quantity."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values):
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass
class Group:
    """Cases that were interleaved: one pair (or the quick commands), one kind of job, one state of the page cache."""

    subject: str
    kind: str
    cache: str
    samples: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)

    @property
    def name(self):
        """Unique among the groups of a result."""
        return f"{self.subject}, {self.kind}, {self.cache}"

    def add(self, case_name, sample):
        """Keep a run."""
        self.samples.setdefault(case_name, []).append(sample)

    def spread(self, case_name, quantity):
        """The Spread of a case's `quantity` (a field of Sample), or None where it wasn't run."""
        samples = self.samples.get(case_name)
        return Spread.of([getattr(sample, quantity) for sample in samples]) if samples else None

    def ratio(self, over, under, which="median"):
        """Wall time of one case over that of another, or None where one of them wasn't run."""
        above, below = self.spread(over, "wall_s"), self.spread(under, "wall_s")
        return getattr(above, which) / getattr(below, which) if above and below else None

    def paired_ratio(self, over, under):
        """The median of the ratios within each round, where both ran in every round; else None."""
        above, below = self.samples.get(over, []), self.samples.get(under, [])
        if not above or len(above) != len(below):
            return None
        return statistics.median(first.wall_s / second.wall_s for first, second in zip(above, below))

    def as_json(self):
        """Everything that was measured, with the spreads beside it."""
        quantities = ("wall_s", "peak_rss_bytes", "cpu_s", "sync_after_s", "read_bytes", "child_bytes")
        cases = {
            name: {"rounds": len(samples),
                   **{quantity: asdict(self.spread(name, quantity)) for quantity in quantities},
                   "samples": [asdict(sample) for sample in samples]}
            for name, samples in self.samples.items()
        }
        return {"subject": self.subject, "kind": self.kind, "cache": self.cache, "notes": self.notes, "cases": cases}


def find(groups, subject, kind, cache):
    """The group of that name, or an empty one."""
    wanted = Group(subject, kind, cache)
    return next((group for group in groups if group.name == wanted.name), wanted)
