//! How connections reach a Redis of one's own: plainly, or by TLS that both sides can check.

use std::fmt;
use std::net::SocketAddr;

use harness_core::CoreResult;
use harness_core::scope::TestScope;
use redis::ConnectionInfo;

use super::readiness;
use crate::provider::recipe::files::ServerFile;

/// Who may connect. Each demands more than the one before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(
    not(feature = "tls"),
    expect(dead_code, reason = "only the feature `tls` asks for more than plain connections")
)]
pub(super) enum Wire {
    #[default]
    Plain,
    Tls,
    ClientCertificates,
}

/// What a client of one server has to know and to show.
#[derive(Clone, Default)]
pub(super) struct Channel {
    #[cfg(feature = "tls")]
    pub(super) keys: Option<std::sync::Arc<keys::Keys>>,
    pub(super) password: Option<String>,
}

impl fmt::Debug for Channel {
    /// Without the password: what is printed ends up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("tls", &self.is_tls()).finish_non_exhaustive()
    }
}

/// What the server has to be given for it.
#[derive(Debug, Default, Clone)]
pub(super) struct Given {
    pub(super) options: Vec<(String, String)>,
    pub(super) files: Vec<ServerFile>,
}

impl Channel {
    #[cfg(not(feature = "tls"))]
    pub(super) fn prepare(_: &TestScope, _: Wire, password: Option<String>) -> CoreResult<(Self, Given)> {
        Ok((Self { password }, Given::default()))
    }

    /// An authority of the server's own, and its certificates where each side looks for them.
    #[cfg(feature = "tls")]
    pub(super) fn prepare(scope: &TestScope, wire: Wire, password: Option<String>) -> CoreResult<(Self, Given)> {
        if wire == Wire::Plain {
            return Ok((Self { keys: None, password }, Given::default()));
        }
        let (keys, given) = keys::Keys::make(scope, wire)?;
        Ok((Self { keys: Some(keys.into()), password }, given))
    }

    #[cfg(feature = "tls")]
    pub(super) fn is_tls(&self) -> bool {
        self.keys.is_some()
    }

    #[cfg(not(feature = "tls"))]
    pub(super) fn is_tls(&self) -> bool {
        false
    }

    /// How to reach the server there, with everything this channel demands.
    pub(super) fn info(&self, at: SocketAddr) -> CoreResult<ConnectionInfo> {
        let info = readiness::own_info(at)?;
        #[cfg(feature = "tls")]
        let info = match &self.keys {
            Some(keys) => keys.dress(at)?,
            None => info,
        };
        let Some(password) = self.password.as_deref() else { return Ok(info) };
        let settings = info.redis_settings().clone().set_password(password);
        Ok(info.set_redis_settings(settings))
    }

    /// The server there as a URL without a logical database, for who logs in by these words (`user:password`), or by the
    /// password alone.
    pub(super) fn url(&self, at: SocketAddr, login: Option<&str>) -> String {
        let scheme = if self.is_tls() { "rediss" } else { "redis" };
        let login = match (login, &self.password) {
            (Some(login), _) => format!("{login}@"),
            (None, Some(password)) => format!(":{}@", encoded(password)),
            (None, None) => String::new(),
        };
        format!("{scheme}://{login}{at}")
    }
}

/// A password as a URL holds it (RFC 3986, 2.3: everything but unreserved characters is written by its octets).
fn encoded(password: &str) -> String {
    let octet = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    password.bytes().map(octet).collect()
}

#[cfg(test)]
mod tests {
    use redis::IntoConnectionInfo as _;

    use super::Channel;

    #[test]
    fn a_password_of_any_characters_comes_through_a_url() {
        for password in ["s3cret", "a@b/c:d#e?f%g", "zwölf", "two words"] {
            let channel = Channel { password: Some(password.to_owned()), ..Channel::default() };
            let url = channel.url(([127, 0, 0, 1], 7).into(), None);
            let info = url.as_str().into_connection_info().unwrap();
            assert_eq!(info.redis_settings().password(), Some(password), "{url}");
        }
    }
}

#[cfg(feature = "tls")]
pub(super) mod keys {
    //! The certificates of one server and of its clients.

    use std::net::SocketAddr;
    use std::path::PathBuf;

    use harness_core::scope::TestScope;
    use harness_core::{CoreResult, Error, ErrorKind};
    use redis::{Client, ClientTlsConfig, ConnectionInfo, TlsCertificates};

    use super::{Given, Wire};
    use crate::provider::recipe::files::ServerFile;
    use crate::tls::{Authority, Pair};

    #[derive(Debug)]
    pub(in crate::redis) struct Keys {
        pub(in crate::redis) authority: Authority,
        pub(in crate::redis) root: PathBuf,
        client: Option<Pair>,
    }

    impl Keys {
        pub(super) fn make(scope: &TestScope, wire: Wire) -> CoreResult<(Self, Given)> {
            let authority = Authority::new(scope.name())?;
            let root = authority.write_to(&scope.temp_dir()?, "redis-root")?;
            let client = if wire == Wire::ClientCertificates { Some(authority.client("default")?) } else { None };
            let given = given(&authority, wire)?;
            Ok((Self { authority, root, client }, given))
        }

        /// What a client trusts, and what it shows if it must.
        pub(in crate::redis) fn certificates(&self) -> TlsCertificates {
            let shown = |pair: &Pair| ClientTlsConfig {
                client_cert: pair.certificate_pem.clone().into_bytes(),
                client_key: pair.key_pem.clone().into_bytes(),
            };
            TlsCertificates {
                client_tls: self.client.as_ref().map(shown),
                root_cert: Some(self.authority.certificate_pem().into_bytes()),
            }
        }

        pub(super) fn dress(&self, at: SocketAddr) -> CoreResult<ConnectionInfo> {
            crate::tls::choose_cryptography();
            let client = Client::build_with_tls(format!("rediss://{at}/"), self.certificates()).map_err(|error| {
                let what = format!("the certificates of the Redis at {at} are none that its driver takes");
                Error::new(ErrorKind::Config, what).caused_by(error)
            })?;
            Ok(client.get_connection_info().clone())
        }
    }

    fn given(authority: &Authority, wire: Wire) -> CoreResult<Given> {
        let pair = authority.server(&["127.0.0.1", "localhost"])?;
        let mut given = Given::default();
        let mut file = |option: &str, name: &'static str, text: String| {
            given.files.push(ServerFile { name, text });
            given.options.push((option.to_owned(), format!("{{files}}/{name}")));
        };
        file("tls-cert-file", "server.crt", pair.certificate_pem);
        file("tls-key-file", "server.key", pair.key_pem);
        file("tls-ca-cert-file", "root.crt", authority.certificate_pem());
        // What it shows where it is a client itself: on the bus of a cluster each side wants to see a client's certificate,
        // whatever `tls-auth-clients` says.
        let node = authority.client("node")?;
        file("tls-client-cert-file", "node.crt", node.certificate_pem);
        file("tls-client-key-file", "node.key", node.key_pem);
        // By default every client would have to show a certificate (redis.io, "TLS").
        let proof = if wire == Wire::ClientCertificates { "yes" } else { "no" };
        given.options.push(("tls-auth-clients".to_owned(), proof.to_owned()));
        Ok(given)
    }
}
