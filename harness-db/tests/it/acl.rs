//! Users of a Redis of one's own: what they may do, and what they may not.

use harness_core::scope::TestScope;
use harness_db::{ErrorKind, OwnRedis, RedisOptions};
use redis::aio::MultiplexedConnection;

async fn at(url: &str) -> redis::RedisResult<MultiplexedConnection> {
    redis::Client::open(url)?.get_multiplexed_async_connection().await
}

async fn run(connection: &mut MultiplexedConnection, words: &[&str]) -> redis::RedisResult<redis::Value> {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]).query_async(connection).await
}

#[tokio::test]
async fn user_may_do_what_was_granted_and_nothing_else() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnRedis::start(&scope, RedisOptions::new()).await?;
    let app = own.user("app").can("~app:* +get").can("+set").await?;
    let mut connection = at(app.url()).await?;
    run(&mut connection, &["SET", "app:1", "x"]).await?;
    for forbidden in [&["DEL", "app:1"][..], &["GET", "other:1"], &["CONFIG", "GET", "*"], &["FLUSHALL"]] {
        let error = run(&mut connection, forbidden).await.unwrap_err();
        assert_eq!(error.code(), Some("NOPERM"), "{forbidden:?}: {error}");
    }
    let wrong = app.url().replace("app:harness-", "app:wrong-");
    assert!(at(&wrong).await.is_err(), "another password lets in");
    let password = app.url().split(['@', ':']).nth(2).unwrap();
    assert!(
        password.starts_with("harness-") && !format!("{app:?} {own:?}").contains(password),
        "passwords are not printed"
    );

    own.kill().await?;
    own.start_again().await?;
    let mut connection = app.connection().await?;
    run(&mut connection, &["SET", "app:1", "x"]).await?;
    assert_eq!(run(&mut connection, &["FLUSHALL"]).await.unwrap_err().code(), Some("NOPERM"), "rights come back");
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn rights_that_redis_does_not_know_are_refused_without_the_password() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnRedis::start(&scope, RedisOptions::new()).await?;
    let error = own.user("app").can("~app:* +no-such-command").await.unwrap_err();
    let text = format!("{error:?}");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(text.contains("+no-such-command") && !text.contains('>'), "{text}");
    for name in ["", "default", "a b", "a:b", "a@b"] {
        assert_eq!(own.user(name).can("+get").await.unwrap_err().kind(), ErrorKind::Config, "`{name}`");
    }
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn server_with_a_password_lets_nobody_in_without_it() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnRedis::start(&scope, RedisOptions::new().password("s3cret").production_like()).await?;
    run(&mut at(&own.url()).await?, &["SET", "a", "1"]).await?;
    let bare = format!("redis://{}", own.address());
    let refused = match at(&bare).await {
        Ok(mut connection) => run(&mut connection, &["GET", "a"]).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(refused.to_string().contains("NOAUTH") || refused.code() == Some("NOAUTH"), "{refused}");
    assert!(at(&own.url().replace("s3cret", "guess")).await.is_err());

    own.stop().await?;
    own.start_again().await?;
    let kept = run(&mut own.connection().await?, &["GET", "a"]).await?;
    assert_eq!(
        kept,
        redis::Value::BulkString(b"1".to_vec()),
        "what a production-like server had is there after a stop"
    );
    own.pause().await?;
    own.resume().await?;
    scope.shutdown().await?;
    Ok(())
}
