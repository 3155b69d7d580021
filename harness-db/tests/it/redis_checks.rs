//! Checks of a leased keyspace: times to live, big keys, commands, channels. Each with what turns it red.

use std::time::Duration;

use harness_db::redis::{LogicalDb, Message, Tiers};
use harness_db::{ErrorKind, Keyspace};

const LIMIT: Duration = Duration::from_secs(20);

async fn run(keyspace: &Keyspace, words: &[&str]) {
    let mut connection = keyspace.connection().await.unwrap();
    let mut command = redis::cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(*word);
    });
    command.query_async::<redis::Value>(&mut connection).await.unwrap();
}

#[tokio::test]
async fn key_that_never_expires_is_found_by_the_scan() -> harness_db::Result {
    let redis = harness_db::redis().await?;
    let none = redis.expects_ttl("session:*", 1..=3600).await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NoEvidence, "{none:?}");
    run(&redis, &["SET", "other", "1"]).await;
    let mut pipe = redis::pipe();
    for n in 0..700 {
        // More than one batch, so that the scan is a scan.
        pipe.cmd("SET").arg(format!("session:{n}")).arg(1).arg("EX").arg(3600).ignore();
    }
    pipe.query_async::<()>(&mut redis.connection().await?).await?;
    let ttls = redis.expects_ttl("session:*", 1..=3600).await?;
    assert_eq!(ttls.keys.len(), 700, "each once, and no other");
    run(&redis, &["SET", "session:forever", "1"]).await;
    run(&redis, &["SET", "session:long", "1", "EX", "7200"]).await;
    let error = redis.expects_ttl("session:*", 1..=3600).await.unwrap_err();
    let text = error.to_string();
    assert!(error.kind() == ErrorKind::Assertion && text.contains("1 never expire: `session:forever`"), "{text}");
    assert!(text.contains("1 outside 1 s to 3600 s: `session:long`"), "{text}");
    Ok(())
}

#[tokio::test]
async fn expiry_is_told_from_deletion_persistence_and_absence() -> harness_db::Result {
    let redis = harness_db::redis().await?;
    run(&redis, &["SET", "short", "1", "PX", "1500"]).await;
    let took = redis.gone_after("short", LIMIT).await?;
    assert!(took <= LIMIT);
    let absent = redis.gone_after("short", LIMIT).await.unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NoEvidence, "{absent:?}");
    run(&redis, &["SET", "forever", "1"]).await;
    let forever = redis.gone_after("forever", LIMIT).await.unwrap_err();
    assert!(forever.to_string().contains("never expires"), "{forever:?}");
    run(&redis, &["SET", "long", "1", "EX", "600"]).await;
    let late = redis.gone_after("long", LIMIT).await.unwrap_err();
    assert!(late.to_string().contains("expires in 10 min, later than 20 s"), "{late:?}");
    // Deleted while it is waited for: it did not live to its end.
    run(&redis, &["SET", "deleted", "1", "EX", "10"]).await;
    let (gone, ()) = tokio::join!(redis.gone_after("deleted", LIMIT), async {
        run(&redis, &["SET", "marker", "1"]).await;
        run(&redis, &["DEL", "deleted"]).await;
    });
    let gone = gone.unwrap_err();
    // The deletion may also win the race against the first look, which finds nothing to judge then.
    match gone.kind() {
        ErrorKind::Assertion => assert!(gone.to_string().contains("before its time"), "{gone:?}"),
        kind => assert_eq!(kind, ErrorKind::NoEvidence, "{gone:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn big_keys_are_named_with_type_and_elements() -> harness_db::Result {
    let redis = harness_db::redis().await?;
    assert!(redis.bigkeys(1).await?.none().is_no_evidence());
    run(&redis, &["SET", "small", "1"]).await;
    redis.bigkeys(10_000).await?.check_none()?;
    run(&redis, &["SET", "text", &"x".repeat(20_000)]).await;
    let mut push = vec!["RPUSH".to_owned(), "queue".to_owned()];
    push.extend((0..400).map(|n| format!("{n:0>100}")));
    run(&redis, &push.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let found = redis.bigkeys(10_000).await?;
    let names: Vec<_> = found.keys.iter().map(|key| (&*key.key, &*key.kind, key.length)).collect();
    assert_eq!(names, [("queue", "list", Some(400)), ("text", "string", Some(20_000))]);
    let text = found.check_none().unwrap_err().to_string();
    assert!(text.starts_with("2 of 3 keys take 9.8 KB or more: `queue` (list, "), "{text}");
    assert!(redis.logical().key_memory("text").await? > Some(20_000));
    assert_eq!(redis.logical().key_memory("absent").await?, None);
    Ok(())
}

async fn get(redis: &Keyspace, n: usize) -> redis::RedisResult<()> {
    let mut connection = redis.connection().await.unwrap();
    for n in 0..n {
        redis::cmd("GET").arg(format!("user:{n}")).query_async::<Option<String>>(&mut connection).await?;
    }
    Ok(())
}

#[tokio::test]
async fn one_command_per_element_is_counted_and_named() -> harness_db::Result {
    let (redis, neighbour) = (harness_db::redis().await?, harness_db::redis().await?);
    let seen = redis
        .commands(async || {
            get(&neighbour, 30).await?; // another logical database of the same server
            get(&redis, 7).await
        })
        .await?;
    assert_eq!(seen.count_sent(), 7, "{:?}", seen.by_shape());
    assert_eq!(seen.by_shape(), [("GET user:#".to_owned(), 7)]);
    seen.at_most(7)?.never_calls("KEYS")?;
    let error = seen.at_most(6).unwrap_err().to_string();
    assert!(error.contains("7 commands sent, at most 6 are allowed: 7 × `GET user:#`"), "{error}");
    Ok(())
}

#[tokio::test]
async fn forbidden_command_is_found_also_in_a_script() -> harness_db::Result {
    let redis = harness_db::redis().await?;
    let seen = redis
        .commands(async || {
            let mut connection = redis.connection().await.unwrap();
            redis::cmd("EVAL").arg("return redis.call('KEYS', '*')").arg(0).query_async::<()>(&mut connection).await
        })
        .await?;
    let error = seen.never_calls("KEYS").unwrap_err().to_string();
    assert!(error.contains("`KEYS` was run 1 times, first `KEYS *` by a script"), "{error}");
    seen.never_calls("FLUSHALL")?;
    assert_eq!(seen.never_calls("CONFIG").unwrap_err().kind(), ErrorKind::NoEvidence, "MONITOR does not show it");
    assert_eq!(seen.count_sent(), 1, "what the script runs is no round trip: {:?}", seen.all);
    Ok(())
}

#[tokio::test]
async fn work_that_sends_nothing_or_fails_proves_nothing() -> harness_db::Result {
    let redis = harness_db::redis().await?;
    let nothing = redis.commands(async || Ok::<_, std::fmt::Error>(())).await?;
    assert_eq!(nothing.at_most(5).unwrap_err().kind(), ErrorKind::NoEvidence);
    nothing.at_most(0)?;
    let failed = redis.commands(async || Err::<(), _>("no route to the cache")).await.unwrap_err();
    assert!(failed.to_string().contains("no route to the cache"), "{failed:?}");
    Ok(())
}

fn number(message: &Message) -> Option<u64> {
    message.text().parse().ok()
}

#[tokio::test]
async fn dropped_and_doubled_messages_are_told_by_their_number() -> harness_db::Result {
    let redis = harness_db::redis().await?;
    let channel = format!("orders:{}:{}", std::process::id(), redis.index());
    let lost = redis.logical().publish(&channel, "1").await.unwrap_err();
    assert!(lost.to_string().contains("reached no subscriber"), "{lost:?}");

    let mut subscriber = redis.subscribe(&[&channel]).await?;
    for n in 1..=50_u64 {
        assert_eq!(redis.logical().publish(&channel, &n.to_string()).await?, 1);
    }
    assert_eq!(subscriber.wait_for(50, LIMIT).await?.len(), 50);
    let heard = subscriber.end().await?;
    heard.exactly(1..=50, number).check()?;

    let subscriber = redis.subscribe(&[&channel]).await?;
    for n in [1, 2, 4, 4, 5] {
        redis.logical().publish(&channel, &n.to_string()).await?;
    }
    let outcome = subscriber.end().await?.exactly(1..=5, number).outcome();
    assert_eq!(outcome.detail(), "of 5 messages: missing: 3; duplicated: 4 (2 times)");

    let silent = redis.subscribe(&[&channel]).await?.end().await?;
    assert!(silent.gapless(number).outcome().is_no_evidence());
    assert!(silent.exactly(1..=5, number).outcome().is_fail(), "it listened, and nothing came");
    Ok(())
}

#[tokio::test]
async fn what_the_server_counts_for_all_is_refused_on_a_shared_one() -> harness_db::Result {
    let redis = harness_db::redis().await?;
    let shared = redis.logical();
    assert_eq!(shared.count_lookups().await.unwrap_err().kind(), ErrorKind::NoEvidence);
    assert_eq!(shared.slowlog(LIMIT).await.unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(shared.key_events().await.unwrap_err().kind(), ErrorKind::Refused);
    let elsewhere = LogicalDb::at(&redis.url())?;
    assert_eq!(elsewhere.count_lookups().await.unwrap_err().kind(), ErrorKind::NoEvidence);
    Ok(())
}

#[tokio::test]
async fn planted_delay_fails_its_tier_and_no_other() -> harness_db::Result {
    let redis = harness_db::redis().await?;
    let mut connection = redis.connection().await?;
    let (tiers, ms) = (Tiers::new(), Duration::from_millis);
    for _ in 0..20 {
        tiers.record("local", Duration::from_micros(40));
        tiers
            .time("redis", async {
                harness_core::wait::pause(ms(15)).await; // as a slow network would
                redis::cmd("PING").query_async::<String>(&mut connection).await
            })
            .await?;
    }
    tiers.check_below("local", 0.95, ms(1))?;
    let slow = tiers.check_below("redis", 0.95, ms(10)).unwrap_err();
    assert!(slow.to_string().contains("20 of 20 samples not below 10 ms"), "{slow:?}");
    let refused = tiers.time("refused", async { Err::<(), _>("refused") }).await;
    assert!(refused.is_err() && tiers.quantile("refused", 0.5).is_none(), "an error is no latency");
    Ok(())
}
