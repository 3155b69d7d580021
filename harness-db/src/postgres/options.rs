//! How a server of one's own shall be.

use super::channel::Wire;
use super::settings::Settings;
use crate::provider::Provider;
use crate::provider::recipe::postgres::{DURABLE, FAST, PRODUCTION};

/// How an [`OwnPostgres`](super::OwnPostgres) shall be.
#[derive(Debug, Clone)]
#[must_use]
pub struct OwnOptions {
    base: &'static [(&'static str, &'static str)],
    added: Settings,
    pub(super) vector: bool,
    pub(super) wire: Wire,
    pub(super) replicas: u32,
    pub(super) disk: Option<u64>,
    pub(super) providers: Option<Vec<Provider>>,
}

impl Default for OwnOptions {
    /// Durable, by the first provider that works.
    fn default() -> Self {
        Self {
            base: DURABLE,
            added: Settings::default(),
            vector: false,
            wire: Wire::Plain,
            replicas: 0,
            disk: None,
            providers: None,
        }
    }
}

impl OwnOptions {
    /// Durable, by the first provider that works.
    pub fn new() -> Self {
        Self::default()
    }

    /// As a careful production server is set: durable, autovacuum on, `wal_level=logical`, PostgreSQL's own defaults for
    /// checkpoints, and limits on statements (30 s), locks (10 s) and forgotten transactions (1 min).
    ///
    /// For tests of durability, replication and timeouts, and for plans that shall be those of production. Every setting is
    /// read back after every start; [`OwnOptions::setting`] replaces single ones.
    pub fn production_like(mut self) -> Self {
        self.base = PRODUCTION;
        self
    }

    /// Fast and not durable: a kill loses acknowledged commits. For tests that want a server alone and no faults.
    pub fn fast(mut self) -> Self {
        self.base = FAST;
        self
    }

    /// Waits for no disk (`fsync=off`): a commit is acknowledged once the kernel has it. What was acknowledged survives a kill of
    /// the server, and not one of the machine. For figures on a machine whose disk is nobody's concern: where others write to
    /// it, too, a commit may wait for it for parts of a second.
    pub fn without_flushes(self) -> Self {
        self.setting("fsync", "off")
    }

    /// Needs pgvector: providers without it are passed over.
    pub fn vector(mut self) -> Self {
        self.vector = true;
        self
    }

    /// Adds a server setting, for example `("wal_level", "logical")`. Read back after every start, and the server refused
    /// when it ignored it.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.added.push((name.into(), value.into()));
        self
    }

    /// Speaks TLS to whoever asks for it, by a certificate of a new authority for 127.0.0.1 and localhost. Its URL asks for
    /// it and checks it (`sslmode=verify-ca`; `verify-full` holds as well). Who connects without TLS is served without.
    #[cfg(feature = "tls")]
    pub fn tls(mut self) -> Self {
        self.wire = self.wire.max(Wire::TlsOffered);
        self
    }

    /// As [`OwnOptions::tls`], and refuses every session without TLS (`hostssl` in `pg_hba.conf`; only the connections of
    /// replicas stay plain).
    #[cfg(feature = "tls")]
    pub fn tls_only(mut self) -> Self {
        self.wire = self.wire.max(Wire::TlsOnly);
        self
    }

    /// As [`OwnOptions::tls_only`], and refuses every session without a client certificate of the authority that names the
    /// session's user (`clientcert=verify-full`). URLs and options carry one for `postgres`; make others by
    /// [`OwnPostgres::authority`](super::OwnPostgres::authority).
    #[cfg(feature = "tls")]
    pub fn client_certificates(mut self) -> Self {
        self.wire = Wire::ClientCertificates;
        self
    }

    /// With this many streaming replicas, each started when this server is, by the same provider. As containers they and
    /// this server share this machine's own network (Linux only) and listen on 127.0.0.1.
    pub fn replicas(mut self, count: u32) -> Self {
        self.replicas = count;
        self
    }

    /// What its databases hold lies on a disk of this many bytes (a tablespace in memory, `default_tablespace`; catalogs and
    /// write-ahead log lie elsewhere): for tests of what a full disk does, SQLSTATE 53100. Containers only, and gone when the
    /// server is stopped or killed: such a server cannot be started again.
    pub fn disk_bytes(mut self, bytes: u64) -> Self {
        self.disk = Some(bytes);
        self
    }

    /// Asks these providers, in this order, instead of those of `HARNESS_PROVIDERS`.
    pub fn providers(mut self, providers: impl IntoIterator<Item = Provider>) -> Self {
        self.providers = Some(providers.into_iter().collect());
        self
    }

    /// The settings of the base, then those added; the last one of a name wins.
    pub(super) fn all_settings(&self) -> Settings {
        let base = self.base.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut all: Settings = Vec::new();
        for (name, value) in base.chain(self.added.iter().cloned()) {
            all.retain(|(known, _)| *known != name);
            all.push((name, value));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::OwnOptions;

    fn of(options: &OwnOptions, name: &str) -> Vec<String> {
        options.all_settings().into_iter().filter(|(known, _)| known == name).map(|(_, value)| value).collect()
    }

    #[test]
    fn an_own_setting_replaces_the_durable_one() {
        let options = OwnOptions::new().setting("synchronous_commit", "remote_apply");
        assert_eq!(of(&options, "synchronous_commit"), ["remote_apply"]);
        assert_eq!(of(&options, "fsync"), ["on"]);
    }

    #[test]
    fn the_base_and_the_order_of_words_do_not_undo_an_own_setting() {
        let options = OwnOptions::new().setting("autovacuum", "off").setting("autovacuum", "on").production_like();
        assert_eq!(of(&options, "autovacuum"), ["on"]);
        assert_eq!(of(&options, "wal_level"), ["logical"]);
        assert_eq!(of(&OwnOptions::new().fast(), "fsync"), ["off"]);
        assert_eq!(of(&OwnOptions::new().fast().setting("fsync", "on"), "fsync"), ["on"]);
        let unflushed = OwnOptions::new().without_flushes();
        assert_eq!(
            (of(&unflushed, "fsync"), of(&unflushed, "synchronous_commit")),
            (vec!["off".into()], vec!["on".into()])
        );
    }
}
