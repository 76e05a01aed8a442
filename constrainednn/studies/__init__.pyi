from .ensembles.calibration import Calibration
from .ensembles.cross_validation import CrossValidation, cross_validate
from .ensembles.ensemble import Ensemble, ensemble
from .tables.law import Law
from .tables.paired import Paired
from .tables.table import Study, load_study
from .tasks import StudyProgress

__all__ = [
    "Calibration",
    "CrossValidation",
    "Ensemble",
    "Law",
    "Paired",
    "Study",
    "StudyProgress",
    "cross_validate",
    "ensemble",
    "load_study",
]
