"""What stands for a long-run outcome that is not in yet: the ladder, past experiments, and the holdout that answers."""

from readout.surrogates.holdout import tables
from readout.surrogates.judged import LEAST_R2, Judged, judged
from readout.surrogates.matches import matches
from readout.surrogates.past import load, notes
from readout.surrogates.summary import aside, foretold, summary, words

__all__ = [
    "LEAST_R2",
    "Judged",
    "aside",
    "foretold",
    "judged",
    "load",
    "matches",
    "notes",
    "summary",
    "tables",
    "words",
]
