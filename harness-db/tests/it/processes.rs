//! Many processes and one server; dead processes and what they leave.

use std::time::Duration;

use harness_core::wait::{Progress, wait_for};
use harness_db::sqlx::{self, Connection as _, PgConnection};

use crate::child::{start, state_dir};

/// Waits until the database of this URL is gone, its server with it or not.
pub(crate) async fn goes(url: &str) {
    wait_for("the database to go", Duration::from_secs(20), async || match PgConnection::connect(url).await {
        Ok(connection) => {
            drop(connection);
            Progress::NotYet("it is there".to_owned())
        }
        Err(_) => Progress::Ready(()),
    })
    .await
    .unwrap();
}

/// Waits until nothing listens there.
async fn server_ends(address: &str) {
    wait_for("the server to end", Duration::from_secs(30), async || {
        match tokio::net::TcpStream::connect(address).await {
            Ok(_) => Progress::NotYet("it listens".to_owned()),
            Err(_) => Progress::Ready(()),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn forty_processes_share_one_server_which_ends_after_them() {
    let state = state_dir();
    let mut children: Vec<_> = (0..40).map(|_| start(state.path(), "postgres", &[])).collect();
    let mut urls: Vec<String> = children.iter_mut().map(|child| child.hears("url")).collect();
    let mut servers: Vec<String> = children.iter_mut().map(|child| child.hears("server")).collect();
    servers.dedup();
    assert_eq!(servers.len(), 1, "one server for all");
    urls.sort();
    urls.dedup();
    assert_eq!(urls.len(), 40, "a database for each");
    let printed =
        children.into_iter().map(|child| child.ends().1).filter(|said| said.contains("harness: postgres from local"));
    assert_eq!(printed.count(), 1, "the choice is printed once per server start");
    server_ends(&servers[0]).await;
}

#[tokio::test]
async fn database_of_a_killed_process_goes_while_another_lives() {
    let state = state_dir();
    let (mut killed, mut living) = (start(state.path(), "postgres", &[]), start(state.path(), "postgres", &[]));
    let (lost, kept) = (killed.hears("url"), living.hears("url"));
    PgConnection::connect(&lost).await.unwrap().close().await.unwrap();
    killed.dies();
    goes(&lost).await;
    let mut connection = PgConnection::connect(&kept).await.expect("the other's database is there");
    let word: String = sqlx::query_scalar("select word from proof").fetch_one(&mut connection).await.unwrap();
    assert_eq!(word, "here");
    drop(connection);
    let server = living.hears("server");
    living.dies();
    server_ends(&server).await;
}

#[tokio::test]
async fn keyspace_of_a_killed_process_is_leased_again() {
    let state = state_dir();
    let mut first = start(state.path(), "redis", &[]);
    let mut second = start(state.path(), "redis", &[]);
    let (a, b) = (first.hears("url"), second.hears("url"));
    assert_ne!(a, b, "two processes, two keyspaces");
    assert!(!a.ends_with("/0") && !b.ends_with("/0"), "{a} {b}");
    first.dies();
    let (status, said) = second.ends();
    assert!(status.success(), "{said}");
}
