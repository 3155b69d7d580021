//! Checks that need a server of one's own: hit rate, memory, slow log, key events, eviction. Each with what turns it red.

use std::time::Duration;

use harness_core::scope::TestScope;
use harness_core::wait::{Progress, wait_for};
use harness_db::redis::eviction::{self, Policy};
use harness_db::redis::{Lookups, MemorySeries};
use harness_db::{ErrorKind, OwnRedis, Provider, RedisOptions};
use redis::aio::MultiplexedConnection;

const HERE: [Provider; 2] = [Provider::Local, Provider::Portable];
const LIMIT: Duration = Duration::from_secs(20);

async fn own(scope: &TestScope, settings: &[(&str, &str)]) -> harness_db::CoreResult<OwnRedis> {
    let options = RedisOptions::new().providers(HERE);
    OwnRedis::start(scope, settings.iter().fold(options, |options, (name, value)| options.setting(*name, *value))).await
}

async fn run(connection: &mut MultiplexedConnection, words: &[&str]) -> redis::RedisResult<redis::Value> {
    let mut command = redis::cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(*word);
    });
    command.query_async(connection).await
}

/// A cache in front of nothing: what it does not hold it stores, for as long as it is told. Counts its lookups itself.
async fn through_cache(redis: &OwnRedis, ttl_ms: Option<&str>, keys: &[u32]) -> redis::RedisResult<Lookups> {
    let mut connection = redis.connection().await.unwrap();
    let (mut hits, mut misses) = (0, 0);
    for n in keys {
        let key = format!("page:{n}");
        match run(&mut connection, &["GET", &key]).await? {
            redis::Value::Nil => {
                misses += 1;
                if let Some(ttl_ms) = ttl_ms {
                    run(&mut connection, &["SET", &key, "x", "PX", ttl_ms]).await?;
                }
            }
            _ => hits += 1,
        }
    }
    Ok(Lookups::new(hits, misses))
}

#[tokio::test]
async fn hit_rate_is_proven_by_two_sources_and_excludes_the_warm_up() -> harness_db::Result {
    let scope = TestScope::current();
    let redis = own(&scope, &[]).await?;
    let keys: Vec<u32> = (0..20).collect();
    through_cache(&redis, Some("600000"), &keys).await?; // the warm-up: 20 misses
    let count = redis.count_lookups().await?;
    let warm: Vec<u32> = (0..100).map(|n| n % 20).collect();
    let ours = through_cache(&redis, Some("600000"), &warm).await?;
    let rate = count.end(ours).await?;
    assert_eq!((rate.server, rate.single_lookups, rate.warm_up.misses), (Lookups::new(100, 0), 100, 20));
    rate.check_above(0.8)?;

    // Exactly the target is not above it.
    let count = redis.count_lookups().await?;
    let exact: Vec<u32> = (0..80).map(|n| n % 20).chain(1_000..1_020).collect();
    let rate = count.end(through_cache(&redis, Some("600000"), &exact).await?).await?;
    let error = rate.check_above(0.8).unwrap_err();
    assert!(error.to_string().contains("80 of 100 (80.00 %)"), "{error:?}");
    assert!(!rate.above(0.8, 0.6).is_fail() && !rate.above(0.8, 0.6).is_pass(), "above critical: degraded");

    // A cache that stores nothing.
    let count = redis.count_lookups().await?;
    let cold: Vec<u32> = (2_000..2_100).map(|n| 2_000 + n % 10).collect();
    let rate = count.end(through_cache(&redis, None, &cold).await?).await?;
    assert!(rate.above(0.7, 0.7).is_fail(), "{}", rate.above(0.7, 0.7));

    // An application that counts wrongly.
    let count = redis.count_lookups().await?;
    through_cache(&redis, None, &cold).await?;
    let rate = count.end(Lookups::new(95, 5)).await?;
    assert!(rate.sources_agree().is_fail() && rate.check_above(0.8).unwrap_err().kind() == ErrorKind::NoEvidence);

    // Counters that began anew.
    let count = redis.count_lookups().await?;
    redis.kill().await?;
    redis.start_again().await?;
    let mut fresh = redis.connection().await?;
    run(&mut fresh, &["GET", "x"]).await?;
    assert!(count.end(Lookups::new(0, 1)).await.is_err(), "another life of the server counts from zero");
    let count = redis.count_lookups().await?;
    run(&mut fresh, &["CONFIG", "RESETSTAT"]).await?;
    assert_eq!(count.end(Lookups::new(0, 0)).await.unwrap_err().kind(), ErrorKind::NoEvidence);
    scope.shutdown().await?;
    Ok(())
}

async fn seen(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, LIMIT, async || match holds() {
        true => Progress::Ready(()),
        false => Progress::NotYet("not yet".to_owned()),
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn ten_megabytes_are_seen_also_when_they_went_between_two_samples() -> harness_db::Result {
    const TEN: u64 = 10 << 20;
    let scope = TestScope::current();
    let redis = own(&scope, &[]).await?;
    let mut connection = redis.connection().await?;
    let sampler = redis.memory().every(Duration::from_millis(20)).start().await?;
    let first = sampler.so_far().points[0].used_bytes;
    run(&mut connection, &["SET", "big", &"x".repeat(10 << 20)]).await?;
    seen("the value", || sampler.so_far().points.iter().any(|point| point.used_bytes >= first + TEN)).await;
    let series: MemorySeries = sampler.stop().await;
    let (peak, _) = series.peak().unwrap();
    assert!(peak >= first + TEN && series.below(peak + 1).is_pass() && series.below(peak).is_fail(), "{peak}");
    assert!(series.check_below(first + TEN).is_err());
    let again = redis.memory().sample().await?;
    assert!(again.peak_bytes >= peak);
    run(&mut connection, &["DEL", "big"]).await?;

    // Four times as much, come and gone while nobody looked: the server remembers. SETRANGE makes it without sending it.
    let blind = redis.memory().every(Duration::from_secs(600)).start().await?;
    run(&mut connection, &["SETRANGE", "bigger", &(4 * TEN).to_string(), "x"]).await?;
    run(&mut connection, &["DEL", "bigger"]).await?;
    let series = blind.stop().await;
    assert!(series.points.iter().all(|point| point.used_bytes < 4 * TEN), "no sample saw it");
    assert!(series.below(4 * TEN).is_fail(), "{:?}", series.peak());
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn memory_sampler_that_cannot_see_leaves_gaps_and_not_zeros() -> harness_db::Result {
    let scope = TestScope::current();
    let redis = own(&scope, &[]).await?;
    let sampler = redis.memory().every(Duration::from_millis(20)).start().await?;
    redis.kill().await?;
    seen("a gap", || !sampler.so_far().gaps.is_empty()).await;
    let series = sampler.stop().await;
    assert!(series.points.iter().all(|point| point.used_bytes > 0));
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn slow_command_is_ranked_first() -> harness_db::Result {
    let scope = TestScope::current();
    let redis = own(&scope, &[]).await?;
    let mut connection = redis.connection().await?;
    let watch = redis.slowlog(Duration::from_secs(30)).await?;
    run(&mut connection, &["SET", "a", "1"]).await?;
    let fast = watch.end().await?;
    assert_eq!((fast.commands, fast.slow.len()), (1, 0));
    fast.check_none()?;

    let busy = "local n = 0 for i = 1, 2000000 do n = n + i end return n";
    let watch = redis.slowlog(Duration::from_micros(1)).await?;
    run(&mut connection, &["SET", "a", "1"]).await?;
    run(&mut connection, &["EVAL", busy, "0"]).await?;
    let slow = watch.end().await?;
    assert!(slow.slow[0].words[0] == "EVAL" && slow.slow[0].took >= slow.threshold, "{:?}", slow.slow);
    let error = slow.check_none().unwrap_err().to_string();
    assert!(error.contains("commands took longer than 1 µs: `EVAL local n = 0"), "{error}");

    let idle = redis.slowlog(Duration::from_secs(30)).await?.end().await?;
    assert_eq!(idle.check_none().unwrap_err().kind(), ErrorKind::NoEvidence, "{idle:?}");
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn pipeline_is_told_from_one_round_trip_per_command() -> harness_db::Result {
    let scope = TestScope::current();
    let redis = own(&scope, &[]).await?;
    let mut connection = redis.connection().await?;
    let mut pipe = redis::pipe();
    (0..100).for_each(|n| {
        pipe.cmd("GET").arg(format!("user:{n}")).ignore();
    });
    let piped = redis.commands(async || pipe.query_async::<()>(&mut connection).await).await?;
    assert_eq!(piped.count_sent(), 100);
    piped.round_trips_at_most(10)?;
    let single = redis
        .commands(async || {
            for n in 0..100 {
                run(&mut connection, &["GET", &format!("user:{n}")]).await?;
            }
            Ok::<_, redis::RedisError>(())
        })
        .await?;
    let error = single.round_trips_at_most(10).unwrap_err().to_string();
    assert!(error.contains("at most 10 are allowed: 100 × `GET user:#`"), "{error}");
    assert_eq!(single.calls.as_ref().and_then(|calls| calls.get("GET")), Some(&100), "{:?}", single.calls);
    // Administrative commands are counted by the server, where MONITOR does not show them.
    let hidden = redis.commands(async || run(&mut connection, &["CONFIG", "GET", "port"]).await).await?;
    assert_eq!(hidden.never_calls("CONFIG").unwrap_err().kind(), ErrorKind::Assertion);
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn expiry_is_seen_as_an_event_and_deletion_as_another() -> harness_db::Result {
    let scope = TestScope::current();
    let redis = own(&scope, &[]).await?;
    let mut connection = redis.connection().await?;
    let mut events = redis.key_events().await?;
    run(&mut connection, &["SET", "session", "1", "PX", "100"]).await?;
    run(&mut connection, &["SET", "other", "1"]).await?;
    run(&mut connection, &["DEL", "other"]).await?;
    assert_eq!(events.wait_for("expired", "session", LIMIT).await?.key, "session");
    let log = events.end().await?;
    log.check_happened("expired", "session")?.check_happened("del", "other")?.check_never("evicted")?;
    let wrong = log.check_happened("expired", "other").unwrap_err();
    assert!(wrong.to_string().contains("its events: set, del"), "{wrong:?}");
    assert!(log.check_never("del").is_err());

    let mut events = redis.key_events().await?;
    run(&mut connection, &["SET", "kept", "1"]).await?;
    events.wait_for("set", "kept", LIMIT).await?;
    let late = events.wait_for("expired", "kept", Duration::from_millis(50)).await.unwrap_err();
    assert!(format!("{late:?}").contains("events of `kept`: set"), "{late:?}");
    run(&mut connection, &["CONFIG", "SET", "notify-keyspace-events", ""]).await?;
    assert_eq!(events.end().await.unwrap_err().kind(), ErrorKind::NoEvidence, "somebody switched them off");
    Ok(scope.shutdown().await?)
}

#[tokio::test]
async fn subscription_that_breaks_off_is_no_evidence() -> harness_db::Result {
    let scope = TestScope::current();
    let redis = own(&scope, &[]).await?;
    let mut subscriber = redis.subscribe(&["orders"]).await?;
    redis.logical().publish("orders", "1").await?;
    subscriber.wait_for(1, LIMIT).await?;
    redis.kill().await?;
    assert!(subscriber.wait_for(2, LIMIT).await.unwrap_err().kind() == ErrorKind::NoEvidence);
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn lru_spares_what_is_used() -> harness_db::Result {
    let scope = TestScope::current();
    let redis = own(&scope, &[("maxmemory", "6mb")]).await?;
    let found = eviction::probe(&redis, Policy::AllKeysLru).await?;
    found.check()?;
    assert!(found.evicted > 0 && found.refused == 0, "{found:?}");
    eprintln!("{}", found.outcome());
    // The same server, judged as a random one would be: the policy it states is another.
    let other = eviction::probe(&redis, Policy::VolatileLru).await?.outcome();
    assert!(other.detail().contains("maxmemory-policy is allkeys-lru, volatile-lru is needed"), "{other}");
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn noeviction_refuses_writes_and_fails() -> harness_db::Result {
    let scope = TestScope::current();
    let redis = own(&scope, &[("maxmemory", "6mb"), ("maxmemory-policy", "noeviction")]).await?;
    let found = eviction::probe(&redis, Policy::AllKeysLru).await?;
    let text = found.check().unwrap_err().to_string();
    assert!(text.contains("maxmemory-policy is noeviction, allkeys-lru is needed") && text.contains("OOM"), "{text}");
    eviction::probe(&redis, Policy::NoEviction).await?.check()?;
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn volatile_policy_evicts_nothing_that_lives_forever() -> harness_db::Result {
    let scope = TestScope::current();
    let redis = own(&scope, &[("maxmemory", "6mb"), ("maxmemory-policy", "volatile-ttl")]).await?;
    let found = eviction::probe(&redis, Policy::VolatileTtl).await?;
    found.check()?;
    assert!(found.pinned.written > 0 && found.pinned.left == found.pinned.written, "{found:?}");
    let forgetful = eviction::probe(&redis, Policy::VolatileTtl).without_ttl().await?.outcome();
    assert!(forgetful.detail().contains("writes are refused under volatile-ttl (it evicts keys with"), "{forgetful}");
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn every_other_policy_passes_its_own_probe() -> harness_db::Result {
    let scope = TestScope::current();
    let redis = own(&scope, &[("maxmemory", "6mb")]).await?;
    let mut connection = redis.connection().await?;
    for policy in [Policy::AllKeysLfu, Policy::VolatileLru, Policy::VolatileLfu, Policy::VolatileRandom] {
        run(&mut connection, &["CONFIG", "SET", "maxmemory-policy", policy.name()]).await?;
        eviction::probe(&redis, policy).await?.check()?;
    }
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn random_eviction_does_not_pass_for_lru() -> harness_db::Result {
    let scope = TestScope::current();
    let redis = own(&scope, &[("maxmemory", "6mb"), ("maxmemory-policy", "allkeys-random")]).await?;
    let mut found = eviction::probe(&redis, Policy::AllKeysRandom).await?;
    found.check()?;
    // What a random server did, under the name of an LRU one.
    (found.policy, found.found) = (Policy::AllKeysLru, "allkeys-lru".to_owned());
    let outcome = found.outcome();
    assert!(outcome.detail().contains("did not spare what was used"), "{outcome}");
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn server_without_a_small_ceiling_is_no_evidence() -> harness_db::Result {
    let scope = TestScope::current();
    let redis = own(&scope, &[]).await?; // 1 GiB
    let error = eviction::probe(&redis, Policy::AllKeysLru).await.unwrap_err();
    assert!(error.kind() == ErrorKind::NoEvidence && error.to_string().contains("takes too long"), "{error:?}");
    scope.shutdown().await?;
    Ok(())
}

/// Whether a way to empty logical database 1 spares database 0.
async fn spares_database_zero(redis: &OwnRedis, empty: impl AsyncFnOnce(&str)) -> redis::RedisResult<bool> {
    let client = redis::Client::open(format!("redis://{}/0", redis.address()))?;
    let mut zero = client.get_multiplexed_async_connection().await?;
    run(&mut zero, &["SET", "sentinel", "1"]).await?;
    run(&mut redis.connection().await.unwrap(), &["SET", "cached", "1"]).await?;
    empty(&redis.url()).await;
    let size = run(&mut redis.connection().await.unwrap(), &["DBSIZE"]).await?;
    assert_eq!(size, redis::Value::Int(0), "database 1 is empty");
    Ok(run(&mut zero, &["EXISTS", "sentinel"]).await? == redis::Value::Int(1))
}

#[tokio::test]
async fn flush_of_the_test_database_spares_database_zero() -> harness_db::Result {
    let scope = TestScope::current();
    let redis = own(&scope, &[]).await?;
    let ours = async |url: &str| assert_eq!(harness_db::flush(url).await.unwrap(), 1);
    assert!(spares_database_zero(&redis, ours).await?);
    let everything = async |_: &str| {
        run(&mut redis.connection().await.unwrap(), &["FLUSHALL"]).await.unwrap();
    };
    assert!(!spares_database_zero(&redis, everything).await?, "a FLUSHALL is told from it");
    let zero = harness_db::flush(&format!("redis://{}/0", redis.address())).await.unwrap_err();
    assert_eq!(zero.kind(), ErrorKind::Refused);
    scope.shutdown().await?;
    Ok(())
}
