//! Servers that speak TLS: who is let in, who is refused, and whether the system under test really encrypts.

use std::path::Path;
use std::time::Duration;

use harness_core::scope::TestScope;
use harness_core::wait::{Progress, wait_for};
use harness_db::sqlx::{self, Connection as _, PgConnection};
use harness_db::tls::Authority;
use harness_db::{ErrorKind, OwnOptions, OwnPostgres, Provider};

use crate::own::lacks_engine;

fn by_process() -> OwnOptions {
    OwnOptions::new().providers([Provider::Local])
}

/// True when the session behind this URL is encrypted.
async fn is_encrypted(url: &str) -> harness_db::Result<bool> {
    let mut session = PgConnection::connect(url).await?;
    let ask = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let encrypted = sqlx::query_scalar(ask).fetch_one(&mut session).await?;
    session.close().await?;
    Ok(encrypted)
}

/// The words of whoever refused the session.
async fn refusal(url: &str) -> String {
    match PgConnection::connect(url).await {
        Ok(_) => panic!("{url} was let in"),
        Err(error) => format!("{error:?}"),
    }
}

async fn lets_in_who_trusts_it_and_refuses_the_rest(own: &OwnPostgres, scope: &TestScope) -> harness_db::Result {
    assert!(own.url().contains("sslmode=verify-ca&sslrootcert="), "{}", own.url());
    assert!(is_encrypted(&own.url()).await?);
    // The names are in the certificate, so that the strictest mode holds as well, by address and by name.
    let strict = own.url().replace("verify-ca", "verify-full");
    assert!(is_encrypted(&strict).await?);
    assert!(is_encrypted(&strict.replace("127.0.0.1", "localhost")).await?);

    let plain = refusal(&own.plain_url()).await;
    assert!(plain.contains("pg_hba.conf") || plain.contains("no encryption"), "{plain}");
    let stranger = Authority::new("somebody else")?.write_to(&scope.temp_dir()?, "stranger")?;
    let trusted = own.url().split("sslrootcert=").nth(1).expect("the URL names its root").to_owned();
    let wrong = refusal(&own.url().replace(&trusted, &stranger.to_string_lossy())).await;
    assert!(wrong.contains("UnknownIssuer") || wrong.contains("certificate"), "{wrong}");

    own.stop().await?;
    own.start_again().await?;
    assert!(is_encrypted(&own.url()).await?, "keys are there after a restart");
    Ok(())
}

#[tokio::test]
async fn a_process_refuses_plain_sessions_and_clients_of_another_authority() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnPostgres::start(&scope, by_process().tls_only()).await?;
    lets_in_who_trusts_it_and_refuses_the_rest(&own, &scope).await?;
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_container_refuses_plain_sessions_and_clients_of_another_authority() -> harness_db::Result {
    let scope = TestScope::current();
    match OwnPostgres::start(&scope, OwnOptions::new().tls_only().providers([Provider::Container])).await {
        Err(error) if lacks_engine(&error) => harness_core::scope::skip("a container engine", format!("{error:?}")),
        Err(error) => return Err(error.into()),
        Ok(own) => lets_in_who_trusts_it_and_refuses_the_rest(&own, &scope).await?,
    }
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn sessions_without_tls_are_named_and_nobody_is_no_evidence() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnPostgres::start(&scope, by_process().tls()).await?;
    assert_eq!(own.check_encrypted().await.unwrap_err().kind(), ErrorKind::NoEvidence);

    let encrypted = PgConnection::connect(&own.url()).await?;
    own.check_encrypted().await?;

    // Offered and not demanded: whoever asks for no TLS is served, and the check says who it was.
    let plain = format!("{}&application_name=billing", own.plain_url());
    let plain = PgConnection::connect(&plain).await?;
    let error = own.check_encrypted().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Assertion);
    assert_eq!(error.what(), "1 of 2 sessions are not encrypted: `billing` as postgres");
    plain.close().await?;
    encrypted.close().await?;
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_client_is_let_in_by_the_certificate_of_its_own_name_alone() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnPostgres::start(&scope, by_process().client_certificates()).await?;
    own.run("create role app login; create role other login").await?;
    assert!(is_encrypted(&own.url()).await?);

    let (bare, _) = own.url().split_once("&sslcert=").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("carries one");
    let nothing = refusal(&bare).await;
    assert!(nothing.contains("certificate"), "{nothing}");

    let authority = own.authority().expect("it speaks TLS");
    let files = authority.client("app")?.write_to(&scope.temp_dir()?, "app", None)?;
    let shown = format!("&sslcert={}&sslkey={}", files.certificate.display(), files.key.display());
    let as_user = |user: &str| format!("{bare}{shown}").replace("postgres://postgres@", &format!("postgres://{user}@"));
    assert!(is_encrypted(&as_user("app")).await?);
    let other = refusal(&as_user("other")).await;
    assert!(other.contains("other"), "{other}");

    let forged = Authority::new("forger")?.client("app")?.write_to(&scope.temp_dir()?, "forged", None)?;
    let forged = format!("{bare}&sslcert={}&sslkey={}", forged.certificate.display(), forged.key.display());
    refusal(&forged.replace("postgres://postgres@", "postgres://app@")).await;
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn an_expired_certificate_is_refused_until_it_is_renewed() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnPostgres::start(&scope, by_process().tls()).await?;
    let mut admin = PgConnection::connect(&own.plain_url()).await?;
    let path: String = sqlx::query_scalar("show ssl_cert_file").fetch_one(&mut admin).await?;
    let dir = Path::new(&path).parent().expect("it lies in a directory");
    let (authority, names) = (own.authority().expect("it speaks TLS"), ["127.0.0.1"]);
    for (pair, refused) in [(authority.expired_server(&names)?, true), (authority.server(&names)?, false)] {
        pair.write_to(dir, "server", None)?;
        sqlx::query("select pg_reload_conf()").execute(&mut admin).await?;
        wait_for(format!("the server to be refused: {refused}"), Duration::from_secs(20), async || {
            match PgConnection::connect(&own.url()).await {
                Ok(_) if !refused => Progress::Ready(()),
                Err(error) if refused && format!("{error:?}").contains("Expired") => Progress::Ready(()),
                other => Progress::NotYet(format!("{:?}", other.err())),
            }
        })
        .await?;
    }
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_build_without_tls_is_passed_over_and_said() -> harness_db::Result {
    let scope = TestScope::current();
    let error = OwnPostgres::start(&scope, OwnOptions::new().tls().providers([Provider::Portable])).await.unwrap_err();
    let text = format!("{error:?}");
    assert!(error.is_environment() && text.contains("built without TLS"), "{text}");
    scope.shutdown().await?;
    Ok(())
}
