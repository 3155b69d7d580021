//! Connections and clients that outlive their test are named, and those that end with it are not.

use harness_core::scope::{Census, Register, TestScope};
use harness_db::postgres::Connections;
use harness_db::redis::Clients;
use harness_db::sqlx::{Connection as _, PgConnection};
use harness_db::{ErrorKind, OwnRedis, Provider, RedisOptions};
use std::sync::Arc;

fn census(register: impl Register + 'static) -> Census {
    Census::of([Arc::new(register) as Arc<dyn Register>])
}

#[tokio::test]
async fn session_that_is_left_open_is_named_by_its_application() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    for is_closed in [true, false] {
        let scope = TestScope::new("sessions");
        scope.census(census(Connections::of(&db.options(), "orders"))).await?;
        let mut orders = PgConnection::connect_with(&db.options().application_name("orders")).await?;
        let other = PgConnection::connect_with(&db.options().application_name("payments")).await?;
        orders.ping().await?;
        let left = if is_closed {
            orders.close().await?;
            None
        } else {
            Some(orders)
        };
        let ended = scope.shutdown().await;
        assert_eq!(ended.is_ok(), is_closed, "{ended:?}");
        if let Err(error) = ended {
            let text = format!("{error:?}");
            assert!(error.kind() == ErrorKind::Assertion && text.contains("1 connections of `orders`"), "{text}");
        }
        drop((left, other));
    }
    Ok(())
}

#[tokio::test]
async fn client_that_is_left_open_is_named_by_its_address() -> harness_db::Result {
    let (outer, keyspace) = (TestScope::current(), harness_db::redis().await?);
    let here = [Provider::Local, Provider::Portable];
    let own = OwnRedis::start(&outer, RedisOptions::new().providers(here)).await?;
    for is_closed in [true, false] {
        let scope = TestScope::new("clients");
        scope.census(census(Clients::of(&own)).register(Clients::of_keyspace(&keyspace)?)).await?;
        let (mut one, mut two) = (own.connection().await?, keyspace.connection().await?);
        for connection in [&mut one, &mut two] {
            redis::cmd("CLIENT").arg("SETNAME").arg("left-open").query_async::<()>(connection).await?;
        }
        let left = (!is_closed).then_some((one, two));
        let ended = scope.shutdown().await;
        assert_eq!(ended.is_ok(), is_closed, "{ended:?}");
        if let Err(error) = ended {
            let text = format!("{error:?}");
            assert!(text.contains("1 clients of the Redis at") && text.contains("1 clients of keyspace"), "{text}");
            assert!(text.contains("left-open"), "{text}");
        }
        drop(left);
    }
    outer.shutdown().await?;
    Ok(())
}
