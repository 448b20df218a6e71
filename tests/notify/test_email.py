"""Carrying a message to a real mail server, or into a folder."""

import ssl
from email import message_from_bytes, policy

import pytest

from mlguard.notify.delivery import Delivery, Outcome, SendError
from mlguard.notify.email import Email
from mlguard.notify.notice import notice

NOW = 1_795_357_400.0


def delivery(facts, recipient="team@example.com", message_id="<inc-x-42.0@example.com>"):
    return Delivery(
        recipient=recipient,
        notice=notice("rolled_back", facts),
        facts=facts,
        message_id=message_id,
        created_at=NOW - 5,
    )


def failure(sender, facts, **options):
    with pytest.raises(SendError) as caught:
        sender.send(delivery(facts, **options), NOW)
    sender.close()
    return caught.value


def test_a_message_arrives_whole_with_one_recipient(project, post_office, facts):
    """What the server took is what was composed, addressed to one recipient."""
    post = post_office()
    sender = Email(project(smtp=f"smtp://127.0.0.1:{post.port}", insecure=True))
    sender.send(delivery(facts), NOW)
    sender.close()
    [(recipients, message)] = post.arrived
    assert recipients == ["team@example.com"]
    assert message["Message-ID"] == "<inc-x-42.0@example.com>"
    assert "v7 serves now" in message.get_body(("plain",)).get_content()


def test_several_messages_share_a_connection(project, post_office, facts):
    """A queue after an outage does not knock once for each message."""
    post = post_office()
    sender = Email(project(smtp=f"smtp://127.0.0.1:{post.port}", insecure=True))
    for number in range(3):
        sender.send(delivery(facts, message_id=f"<inc-x-42.{number}@example.com>"), NOW)
    sender.close()
    assert [message["Message-ID"] for _, message in post.arrived] == [
        f"<inc-x-42.{number}@example.com>" for number in range(3)
    ]


def test_starttls_is_used_and_its_certificate_checked(project, post_office, tls, facts):
    """With a trusted certificate the message travels encrypted."""
    post = post_office(tls_context=tls, require_starttls=True)
    sender = Email(project(smtp=f"smtp://127.0.0.1:{post.port}"))
    sender.send(delivery(facts), NOW)
    sender.close()
    assert len(post.arrived) == 1


def test_tls_from_the_start_works_too(project, post_office, tls, facts):
    """smtps:// speaks TLS before the first word."""
    post = post_office(ssl_context=tls)
    sender = Email(project(smtp=f"smtps://127.0.0.1:{post.port}"))
    sender.send(delivery(facts), NOW)
    sender.close()
    assert len(post.arrived) == 1


def test_a_certificate_that_nobody_vouches_for_is_refused(project, post_office, authority, facts):
    """A stranger's certificate is as bad as none; the message waits."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    post = post_office(tls_context=context)
    error = failure(Email(project(smtp=f"smtp://127.0.0.1:{post.port}")), facts)
    assert error.outcome is Outcome.UNREACHABLE
    assert "certificate" in error.message
    assert post.arrived == []


def test_a_server_without_starttls_gets_nothing_unless_told(project, post_office, facts):
    """Nobody in between may strip the encryption away unnoticed."""
    post = post_office()
    error = failure(Email(project(smtp=f"smtp://127.0.0.1:{post.port}")), facts)
    assert error.outcome is Outcome.UNREACHABLE
    assert "STARTTLS" in error.message
    assert "insecure = true" in error.hint
    assert post.arrived == []


def auth(post_office, tls):
    from aiosmtpd.smtp import AuthResult

    def check(server, session, envelope, mechanism, data):
        good = data.login == b"mlguard" and data.password == b"right"
        return AuthResult(success=good, handled=False)

    return post_office(
        tls_context=tls, require_starttls=True, authenticator=check, auth_required=True
    )


def test_the_password_comes_from_the_environment(project, post_office, tls, facts):
    """The right password from the named variable opens the door."""
    post = auth(post_office, tls)
    settings = project(
        smtp=f"smtp://127.0.0.1:{post.port}", username="mlguard", password_env="SMTP_PW"
    )
    sender = Email(settings, environ={"SMTP_PW": "right"})
    sender.send(delivery(facts), NOW)
    sender.close()
    assert len(post.arrived) == 1


@pytest.mark.parametrize("environ", [{"SMTP_PW": "wrong-secret"}, {}])
def test_a_refused_login_stops_the_queue(project, post_office, tls, facts, environ):
    """535 is nobody's message's fault; the password is in no error."""
    post = auth(post_office, tls)
    settings = project(
        smtp=f"smtp://127.0.0.1:{post.port}", username="mlguard", password_env="SMTP_PW"
    )
    sender = Email(settings, environ=environ)
    error = failure(sender, facts)
    assert error.outcome is Outcome.STOP
    assert "wrong-secret" not in f"{error.message}{error.hint}{error.__cause__!r}"


def test_after_a_refused_login_the_server_is_left_alone_for_a_while(
    project, post_office, tls, facts
):
    """A wrong password tried every second would lock the account."""
    post = auth(post_office, tls)
    settings = project(
        smtp=f"smtp://127.0.0.1:{post.port}", username="mlguard", password_env="SMTP_PW"
    )
    environ = {"SMTP_PW": "wrong"}
    sender = Email(settings, environ=environ)
    failure(sender, facts)
    environ["SMTP_PW"] = "right"
    assert failure(sender, facts).outcome is Outcome.STOP
    sender.send(delivery(facts), NOW + 61)
    sender.close()
    assert len(post.arrived) == 1


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("550 no such user", Outcome.NEVER),
        ("450 greylisted", Outcome.AGAIN),
        ("421 closing", Outcome.UNREACHABLE),
    ],
)
def test_what_the_server_says_of_a_recipient_decides(project, post_office, facts, answer, outcome):
    """550 is for ever, 450 for now, and 421 closes the door for everybody."""
    post = post_office()
    post.handler.rcpt["team@example.com"] = answer
    error = failure(Email(project(smtp=f"smtp://127.0.0.1:{post.port}", insecure=True)), facts)
    assert error.outcome is outcome
    assert answer.partition(" ")[2] in error.message


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [("554 looks like spam", Outcome.NEVER), ("451 disk full", Outcome.AGAIN)],
)
def test_what_the_server_says_of_the_text_decides(project, post_office, facts, answer, outcome):
    """A refused text is dead, a busy server is asked again."""
    post = post_office()
    post.handler.data = answer
    error = failure(Email(project(smtp=f"smtp://127.0.0.1:{post.port}", insecure=True)), facts)
    assert error.outcome is outcome


def test_a_server_that_hangs_after_the_text_is_given_up(project, post_office, facts):
    """Silence ends after the timeout; the message is tried again."""
    post = post_office()
    post.handler.hang = True
    settings = project(smtp=f"smtp://127.0.0.1:{post.port}", insecure=True, timeout_s=0.3)
    assert failure(Email(settings), facts).outcome is Outcome.UNREACHABLE


def test_nobody_at_home_is_unreachable(project, facts):
    """A closed port is an outage, not an end."""
    error = failure(Email(project(smtp="smtp://127.0.0.1:9", insecure=True)), facts)
    assert error.outcome is Outcome.UNREACHABLE


@pytest.mark.parametrize("smtp", ["localhost:25", "http://localhost", "smtp://"])
def test_an_address_that_is_no_mail_server_stops_the_queue(project, facts, smtp):
    """A wrong setting loses nothing and names itself."""
    error = failure(Email(project(smtp=smtp, insecure=True)), facts)
    assert error.outcome is Outcome.STOP
    assert "[notify.email] smtp" in error.message


def test_a_recipient_that_is_no_address_is_dead_at_once(project, post_office, facts):
    """It never reaches the server, so it cannot smuggle a second recipient in."""
    post = post_office()
    sender = Email(project(smtp=f"smtp://127.0.0.1:{post.port}", insecure=True))
    error = failure(sender, facts, recipient="a@b\r\nRCPT TO:<c@d>")
    assert error.outcome is Outcome.NEVER
    assert post.arrived == []


def test_without_a_server_the_message_is_a_file(project, facts):
    """The file opens in a mail program; writing it again replaces it."""
    settings = project()
    sender = Email(settings)
    for _ in range(2):
        sender.send(delivery(facts, recipient="file"), NOW)
    [file] = (settings.state_dir / "outbox").iterdir()
    assert file.suffix == ".eml"
    parsed = message_from_bytes(file.read_bytes(), policy=policy.default)
    assert parsed["Subject"].startswith("[ROLLED BACK v8 → v7]")
    assert parsed.get_body(("html",)) is not None


def test_a_folder_that_cannot_be_written_is_an_outage(project, facts):
    """Nothing is lost while the folder is in the way."""
    settings = project()
    settings.state_dir.mkdir()
    (settings.state_dir / "outbox").write_text("a file, not a folder")
    assert failure(Email(settings), facts, recipient="file").outcome is Outcome.UNREACHABLE


def test_strange_names_cannot_leave_the_folder(project, facts):
    """The file's name is made of letters, whatever the app is called."""
    settings = project()
    Email(settings).send(delivery({**facts, "app": "../../x\0y"}, recipient="file"), NOW)
    [file] = (settings.state_dir / "outbox").iterdir()
    assert "/" not in file.name
    assert file.is_file()


def test_a_sender_that_is_no_address_stops_the_queue(project, facts):
    """A typing error in mlguard.toml loses nothing: every message waits for the correction."""
    error = failure(Email(project(smtp="smtp://127.0.0.1:9", **{"from": "nobody"})), facts)
    assert error.outcome is Outcome.STOP
    assert "[notify.email] from = 'nobody'" in error.message
