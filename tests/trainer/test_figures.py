"""Pictures are drawn from results alone, in both formats."""

import pytest

pytest.importorskip("matplotlib")

from dreamprm_trainer.evaluate import Pool, evaluate
from dreamprm_trainer.figures import curves, label_histogram, reliability


@pytest.fixture
def result():
    scores = {"prm": (0.9, 0.7, 0.3, 0.1), "prm, min": (0.0,) * 4, "random": (0.0,) * 4}
    pools = [Pool(str(k), (k % 2 == 0, True, False, False), scores) for k in range(8)]
    return evaluate(pools, (1, 2, 4), resamples=20, probabilities=["prm"])


def test_curves_name_their_methods(result, tmp_path):
    svg, png = curves(result, tmp_path / "v1.2")
    assert (svg.name, png.name) == ("v1.2.svg", "v1.2.png")
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    assert "<!-- oracle -->" in text
    assert "<!-- prm -->" in text
    assert "prm, min" not in text
    assert "<!-- problems solved -->" in text


def test_reliability_tells_the_error(result, tmp_path):
    svg, _ = reliability(result, tmp_path / "reliability")
    assert f"prm (ECE {result['calibration']['prm']['ece']:.3f})" in svg.read_text()


def test_labels_before_and_after(tmp_path):
    svg, png = label_histogram([5, 0, 3], [1, 6, 1], tmp_path / "labels")
    assert "corrected" in svg.read_text()
    assert png.stat().st_size > 1000
