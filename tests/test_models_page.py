"""docs/models.md is what the repository, the tests and the last benchmark say."""

from tests import models_page


def test_the_page_of_models_is_current() -> None:
    current = models_page.PAGE.read_text(encoding="utf-8")
    assert current == models_page.page(), "run `python -m tests.models_page`"


def test_every_network_of_the_repository_is_tested_on_a_tiny_checkpoint() -> None:
    assert set(models_page.TINY) <= set(models_page.named_in_tests())
