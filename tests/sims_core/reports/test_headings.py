"""What a page calls the columns of a table."""

import pytest

from sims_core.reports.headings import heading


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("fid", "FID"),
        ("fid_all", "FID (all real)"),
        ("precision", "Precision (k = 3)"),
        ("recall_all", "Recall (k = 3) (all real)"),
        ("kid_std", "KID: deviation over subsets"),
        ("w2_empirical", "empirical W2"),
        ("pollution", "|D_p|"),
        ("metric_seed", "seed of KID's subsets"),
        ("some_thing", "some thing"),
    ],
)
def test_columns_have_titles_for_people(key, title):
    assert heading(key, {"precision_recall": 3}) == title
