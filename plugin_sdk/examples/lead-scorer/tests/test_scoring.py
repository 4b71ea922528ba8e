"""The rules alone, without a sandbox: `keelstone plugin test` puts the source on the path."""

from scoring import Person, Rules, score


def test_the_weightiest_word_of_a_title_counts_and_only_that() -> None:
    rules = Rules(company_domain_points=0, title_points={"head": 25, "chief": 40, "intern": -10})
    result = score(Person("a@b.example", attributes={"title": "Head, chief intern"}), rules, 0)
    assert (result.points, result.reasons) == (40, ["+40 title says chief"])


def test_a_score_stays_between_0_and_100() -> None:
    rules = Rules(domain_points={"a.example": 100, "b.example": -100})
    assert score(Person("x@a.example"), rules, 100).points == 100
    assert score(Person("x@b.example"), rules, 100).points == 0


def test_somebody_without_an_address_scores_nothing() -> None:
    assert score(Person(""), Rules(), 0).points == 0


def test_bands_begin_where_the_tenant_says() -> None:
    rules = Rules(hot_from=30, company_domain_points=30)
    assert score(Person("x@a.example"), rules, 0).band == "hot"
    assert score(Person("x@a.example"), Rules(hot_from=60, company_domain_points=30), 0).band == "warm"
    assert score(Person("x@a.example"), Rules(hot_from=61, company_domain_points=30), 0).band == "cold"
