"""Golden numbers of rliable 1.2.0: python tests/golden/make_rliable.py, with `pip install rliable==1.2.0 'pandas<3'`."""

import json
from pathlib import Path

import numpy as np
from rliable import library, metrics

rng = np.random.default_rng(0)
scores, others = rng.normal(1.0, 1.0, (10, 3)), rng.normal(0.6, 1.0, (8, 3))
thresholds = np.linspace(-1.0, 3.0, 9)

points, intervals = library.get_interval_estimates(
    {"x": scores}, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=50_000, random_state=np.random.RandomState(0)
)
better, better_interval = library.get_interval_estimates(
    {"x,y": (scores, others)}, metrics.probability_of_improvement, reps=5_000, random_state=np.random.RandomState(0)
)
profile = [library.run_score_deviation(scores, threshold) for threshold in thresholds]
golden = {
    "scores": scores.T.tolist(),
    "others": others.T.tolist(),
    "interquartile_mean": float(points["x"][0]),
    "interquartile_interval": intervals["x"].ravel().tolist(),
    "improvement": float(np.ravel(better["x,y"])[0]),
    "improvement_interval": better_interval["x,y"].ravel().tolist(),
    "thresholds": thresholds.tolist(),
    "profile": [float(share) for share in profile],
}
Path(__file__).with_name("rliable.json").write_text(json.dumps(golden, indent=1) + "\n")
