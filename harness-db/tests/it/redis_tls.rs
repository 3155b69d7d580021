//! Redis servers that speak TLS: who is let in, who is refused, and in which words.

use harness_core::scope::TestScope;
use harness_db::redis::LogicalDb;
use harness_db::tls::Authority;
use harness_db::{ErrorKind, OwnRedis, Provider, RedisOptions};
use redis::{Client, TlsCertificates};

use crate::own::lacks_engine;

fn by_process() -> RedisOptions {
    RedisOptions::new().providers([Provider::Local])
}

/// The first answer a client gets.
async fn ping(client: &Client) -> redis::RedisResult<String> {
    let mut connection = client.get_multiplexed_async_connection().await?;
    redis::cmd("PING").query_async(&mut connection).await
}

fn client(own: &OwnRedis, certificates: TlsCertificates) -> Client {
    Client::build_with_tls(own.url(), certificates).unwrap()
}

async fn lets_in_who_trusts_it_and_refuses_the_rest(own: &OwnRedis) -> harness_db::Result {
    assert!(own.url().starts_with("rediss://"), "{}", own.url());
    assert_eq!(ping(&own.client()?).await?, "PONG");
    own.check_settings().await?;
    let root = std::fs::read(own.root_certificate().expect("it speaks TLS"))?;
    let by_file = TlsCertificates { client_tls: None, root_cert: Some(root.clone()) };
    assert_eq!(ping(&client(own, by_file.clone())).await?, "PONG");
    // The names are in the certificate: by name it holds as well.
    let by_name = own.url().replace("127.0.0.1", "localhost");
    assert_eq!(ping(&Client::build_with_tls(by_name, by_file)?).await?, "PONG");

    // Each of the two refusals is a typed error that says what to do.
    let plain = LogicalDb::at(&own.plain_url())?.connection().await.unwrap_err();
    assert_eq!(plain.kind(), ErrorKind::Connect, "{plain:?}");
    assert!(format!("{plain:?}").contains("write the URL with rediss://"), "{plain:?}");
    let untrusting = LogicalDb::at(&own.url())?.connection().await.unwrap_err();
    assert_eq!(untrusting.kind(), ErrorKind::Connect, "{untrusting:?}");
    assert!(format!("{untrusting:?}").contains("an authority this client does not trust"), "{untrusting:?}");

    // A client that trusts somebody else, who has the same name.
    let stranger = Authority::new("somebody else")?.certificate_pem().into_bytes();
    let wrong = ping(&client(own, TlsCertificates { client_tls: None, root_cert: Some(stranger) })).await.unwrap_err();
    assert!(format!("{wrong:?} {wrong}").contains("UnknownIssuer"), "{wrong:?}");

    own.kill().await?;
    own.start_again().await?;
    assert_eq!(ping(&own.client()?).await?, "PONG", "keys are there after a restart");
    Ok(())
}

#[tokio::test]
async fn a_process_refuses_plain_clients_and_those_of_another_authority() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnRedis::start(&scope, by_process().tls()).await?;
    assert!(own.authority().is_some() && own.certificates().is_some());
    lets_in_who_trusts_it_and_refuses_the_rest(&own).await?;
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_container_refuses_plain_clients_and_those_of_another_authority() -> harness_db::Result {
    let scope = TestScope::current();
    match OwnRedis::start(&scope, RedisOptions::new().tls().providers([Provider::Container])).await {
        Err(error) if lacks_engine(&error) => harness_core::scope::skip("a container engine", format!("{error:?}")),
        Err(error) => return Err(error.into()),
        Ok(own) => lets_in_who_trusts_it_and_refuses_the_rest(&own).await?,
    }
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_client_without_a_certificate_of_the_authority_is_refused() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnRedis::start(&scope, by_process().client_certificates().password("secret")).await?;
    assert_eq!(ping(&own.client()?).await?, "PONG");

    let certificates = own.certificates().expect("it speaks TLS");
    let bare = TlsCertificates { client_tls: None, ..certificates.clone() };
    ping(&client(&own, bare)).await.unwrap_err();

    let forged = Authority::new("forger")?.client("app")?;
    let mut shown = certificates.client_tls.clone().expect("it shows one");
    (shown.client_cert, shown.client_key) = (forged.certificate_pem.into_bytes(), forged.key_pem.into_bytes());
    ping(&client(&own, TlsCertificates { client_tls: Some(shown.clone()), ..certificates.clone() })).await.unwrap_err();

    let made = own.authority().expect("it speaks TLS").client("app")?;
    (shown.client_cert, shown.client_key) = (made.certificate_pem.into_bytes(), made.key_pem.into_bytes());
    let made = client(&own, TlsCertificates { client_tls: Some(shown), ..certificates });
    assert_eq!(ping(&made).await?, "PONG");
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn checks_and_users_reach_a_server_that_wants_tls_and_a_password() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnRedis::start(&scope, by_process().tls().password("secret")).await?;
    let mut connection = own.connection().await?;
    redis::cmd("SET").arg("session:1").arg("x").arg("EX").arg(60).query_async::<()>(&mut connection).await?;
    own.expects_ttl("session:*", 1..=60).await?;
    let mut listener = own.subscribe(&["news"]).await?;
    own.logical().publish("news", "encrypted").await?;
    let heard = listener.wait_for(1, std::time::Duration::from_secs(5)).await?;
    assert_eq!(heard[0].text(), "encrypted");

    let user = own.user("app").can("~session:* +get").await?;
    assert!(user.url().starts_with("rediss://app:"), "the scheme says TLS");
    let mut as_user = user.connection().await?;
    assert_eq!(redis::cmd("GET").arg("session:1").query_async::<String>(&mut as_user).await?, "x");
    assert!(redis::cmd("DEL").arg("session:1").query_async::<i64>(&mut as_user).await.is_err());
    assert!(!format!("{own:?}").contains("secret"), "a password is printed");
    scope.shutdown().await?;
    Ok(())
}
