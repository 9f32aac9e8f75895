from serving.settings import Settings


def test_addresses_with_passwords_are_in_no_repr() -> None:
    settings = Settings(jobs_database_url="postgresql://u:hunter2@h/d", artifacts_url="s3://key:hunter2@bucket")
    assert "hunter2" not in f"{settings!r} {settings}"
    assert "hunter2" in settings.resolved().jobs_database_url
