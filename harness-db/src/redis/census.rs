//! Clients of a Redis as a kind of things that a test can leak.

use std::collections::BTreeSet;

use harness_core::CoreResult;
use harness_core::scope::{Listing, Register};
use redis::ConnectionInfo;

use super::{Keyspace, OwnRedis, wire};

/// The clients of a Redis, for [`TestScope::census`](harness_core::scope::TestScope::census): of a server of the test's own all, of
/// a keyspace those that have selected it. Replicas are no clients.
#[derive(Debug, Clone)]
pub struct Clients {
    info: ConnectionInfo,
    index: Option<i64>,
}

impl Clients {
    /// All clients of this server.
    #[must_use]
    pub fn of(own: &OwnRedis) -> Self {
        Self { info: own.info().clone(), index: None }
    }

    /// Those that use this keyspace.
    ///
    /// # Errors
    /// [`harness_core::ErrorKind::Config`] when its URL cannot be read.
    pub fn of_keyspace(keyspace: &Keyspace) -> CoreResult<Self> {
        let (info, _) = wire::parse_url("the keyspace's URL", &keyspace.url())?;
        Ok(Self { info, index: Some(keyspace.index()) })
    }

    async fn clients(&self) -> CoreResult<BTreeSet<String>> {
        // Not in the keyspace itself, where this connection would be one of them.
        let mut session = wire::connect(&wire::at_index(&self.info, 0)).await?;
        let own: u64 = wire::ask(&mut session, &["CLIENT", "ID"]).await?;
        let list: String = wire::ask(&mut session, &["CLIENT", "LIST"]).await?;
        Ok(listed(&list, own, self.index))
    }
}

/// The clients of `CLIENT LIST`, by what stays the same while they live.
fn listed(list: &str, own: u64, index: Option<i64>) -> BTreeSet<String> {
    let line = |line: &str| {
        let field = |name: &str| line.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        let is_replica = field("flags").is_some_and(|flags| flags.contains(['S', 'M']));
        let is_elsewhere = index.is_some_and(|index| field("db") != Some(&index.to_string()));
        let id = field("id").filter(|id| **id != own.to_string())?;
        let is_client = !is_replica && !is_elsewhere;
        let name = field("name").filter(|name| !name.is_empty()).unwrap_or("no name");
        is_client.then(|| format!("client {id} from {}, {name}", field("addr").unwrap_or_default()))
    };
    list.lines().filter_map(line).collect()
}

impl Register for Clients {
    fn name(&self) -> String {
        match self.index {
            Some(index) => format!("clients of keyspace {index} at {}", self.info.addr()),
            None => format!("clients of the Redis at {}", self.info.addr()),
        }
    }

    fn list(&self) -> Listing<'_> {
        Box::pin(self.clients())
    }
}

#[cfg(test)]
mod tests {
    use super::listed;

    #[test]
    fn own_connection_replicas_and_other_keyspaces_are_no_clients() {
        let list = "id=3 addr=127.0.0.1:1 name= db=0 flags=N\nid=4 addr=127.0.0.1:2 name=app db=1 flags=N\n\
                    id=5 addr=127.0.0.1:3 name= db=0 flags=S\nid=6 addr=127.0.0.1:4 name= db=2 flags=b\n";
        let names = |index| listed(list, 3, index).into_iter().collect::<Vec<_>>();
        assert_eq!(names(None), ["client 4 from 127.0.0.1:2, app", "client 6 from 127.0.0.1:4, no name"]);
        assert_eq!(names(Some(1)), ["client 4 from 127.0.0.1:2, app"]);
        assert!(listed(list, 4, Some(1)).is_empty());
    }
}
