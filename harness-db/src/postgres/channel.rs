//! How sessions reach a server of one's own: plainly, or by TLS that both sides can check.

use std::path::PathBuf;
#[cfg(feature = "tls")]
use std::sync::Arc;

use harness_core::CoreResult;
use harness_core::scope::TestScope;
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::settings::Settings;
use crate::provider::recipe::files::ServerFile;
#[cfg(feature = "tls")]
use crate::tls::{Authority, PairFiles};

/// Who may have a session. Each demands more than the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(
    not(feature = "tls"),
    expect(dead_code, reason = "only the feature `tls` asks for more than plain sessions")
)]
pub(super) enum Wire {
    Plain,
    TlsOffered,
    TlsOnly,
    ClientCertificates,
}

/// What a client of one server has to know and to show.
#[derive(Debug, Clone, Default)]
pub(super) struct Channel {
    /// The certificate to trust; without one there is no TLS.
    root: Option<PathBuf>,
    /// The client's own certificate and key.
    client: Option<(PathBuf, PathBuf)>,
    #[cfg(feature = "tls")]
    pub(super) authority: Option<Arc<Authority>>,
}

/// What the server has to be given for it.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) settings: Settings,
    pub(super) files: Vec<ServerFile>,
}

impl Channel {
    #[cfg(not(feature = "tls"))]
    pub(super) fn prepare(_: &TestScope, _: Wire) -> CoreResult<(Self, Given)> {
        Ok(Default::default())
    }

    /// An authority of the server's own, and its certificates where each side looks for them.
    #[cfg(feature = "tls")]
    pub(super) fn prepare(scope: &TestScope, wire: Wire) -> CoreResult<(Self, Given)> {
        if wire == Wire::Plain {
            return Ok(Default::default());
        }
        let (dir, authority) = (scope.temp_dir()?, Authority::new(scope.name())?);
        let mut channel = Self { root: Some(authority.write_to(&dir, "root")?), ..Self::default() };
        let given = given(&authority, wire)?;
        if wire == Wire::ClientCertificates {
            let PairFiles { certificate, key, .. } = authority.client("postgres")?.write_to(&dir, "client", None)?;
            channel.client = Some((certificate, key));
        }
        channel.authority = Some(Arc::new(authority));
        Ok((channel, given))
    }

    /// The options with what this channel demands.
    pub(super) fn dress(&self, options: PgConnectOptions) -> PgConnectOptions {
        let Some(root) = &self.root else { return options };
        let options = options.ssl_mode(PgSslMode::VerifyCa).ssl_root_cert(root);
        match &self.client {
            Some((certificate, key)) => options.ssl_client_cert(certificate).ssl_client_key(key),
            None => options,
        }
    }

    /// The URL of these options, with the words of libpq for what this channel demands (PostgreSQL documentation, 34.1.2).
    pub(super) fn url(&self, options: &PgConnectOptions) -> String {
        let mut url = options.to_url_lossy();
        url.set_query(None);
        if let Some(root) = &self.root {
            let mut words = url.query_pairs_mut();
            words.append_pair("sslmode", "verify-ca").append_pair("sslrootcert", &root.to_string_lossy());
            if let Some((certificate, key)) = &self.client {
                words.append_pair("sslcert", &certificate.to_string_lossy());
                words.append_pair("sslkey", &key.to_string_lossy());
            }
        }
        url.to_string()
    }
}

#[cfg(feature = "tls")]
fn given(authority: &Authority, wire: Wire) -> CoreResult<Given> {
    let pair = authority.server(&["127.0.0.1", "localhost"])?;
    let mut given = Given::default();
    let mut file = |setting: &str, name: &'static str, text: String| {
        given.files.push(ServerFile { name, text });
        given.settings.push((setting.to_owned(), format!("{{files}}/{name}")));
    };
    file("ssl_cert_file", "server.crt", pair.certificate_pem);
    file("ssl_key_file", "server.key", pair.key_pem);
    file("ssl_ca_file", "root.crt", authority.certificate_pem());
    if wire >= Wire::TlsOnly {
        let proof = if wire == Wire::ClientCertificates { " clientcert=verify-full" } else { "" };
        let rules = format!("host replication all all trust\nhostssl all all all trust{proof}\n");
        file("hba_file", "pg_hba.conf", rules);
    }
    given.settings.push(("ssl".to_owned(), "on".to_owned()));
    Ok(given)
}
