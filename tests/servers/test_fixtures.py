import psycopg
import pytest

from tests.servers.process import KEPT, program


def test_postgresql_gives_every_test_a_database_of_its_own(postgres_database: str, postgres_url: str) -> None:
    assert postgres_database != postgres_url
    with psycopg.connect(postgres_database) as connection:
        connection.execute("CREATE TABLE films (id int)")
        assert connection.execute("SELECT count(*) FROM films").fetchone() == (0,)


def test_a_server_that_a_test_asks_for_late_is_not_taken_for_one_left_behind(request: pytest.FixtureRequest) -> None:
    assert str(request.getfixturevalue("redis_url")).startswith("redis://127.0.0.1:")
    assert KEPT


def test_a_server_that_is_not_installed_fails_the_test_with_the_command() -> None:
    with pytest.raises(pytest.fail.Exception, match="apt-get install no-such-package"):
        program("no-such-server", "no-such-package", "/usr/lib/nowhere/*/bin")
