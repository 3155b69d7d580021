//! What a conversation runs over: TCP, or TLS over TCP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Socket {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    #[cfg(feature = "tls")]
    Secure(Box<tokio_rustls::TlsStream<TcpStream>>),
}

impl Socket {
    /// The TCP connection below.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            #[cfg(feature = "tls")]
            Self::Secure(tls) => tls.get_ref().0,
        }
    }
}

macro_rules! with {
    ($socket:expr, $inner:ident => $call:expr) => {
        match $socket.get_mut() {
            Socket::Plain($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
            #[cfg(feature = "tls")]
            Socket::Secure($inner) => {
                let $inner = Pin::new(&mut **$inner);
                $call
            }
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        with!(self, inner => inner.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        with!(self, inner => inner.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with!(self, inner => inner.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with!(self, inner => inner.poll_shutdown(cx))
    }
}

/// Whose certificates are believed.
#[cfg(feature = "tls")]
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust(Vec<rustls::pki_types::CertificateDer<'static>>);

#[cfg(feature = "tls")]
impl Trust {
    pub(crate) fn of(pem: &[u8]) -> harness_core::CoreResult<Self> {
        use harness_core::{Error, ErrorKind};
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject as _;
        let bad =
            |what: &str| Error::new(ErrorKind::Config, format!("the certificates to trust cannot be used: {what}"));
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match read {
            Ok(certificates) if !certificates.is_empty() => Ok(Self(certificates)),
            Ok(_) => Err(bad("the text holds none")),
            Err(error) => Err(bad("one cannot be read").caused_by(error)),
        }
    }

    /// Shakes hands as a client of this host.
    pub(crate) async fn connect(&self, host: &str, socket: TcpStream) -> io::Result<Socket> {
        use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
        let mut roots = RootCertStore::empty();
        for certificate in &self.0 {
            roots.add(certificate.clone()).map_err(io::Error::other)?;
        }
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        Ok(Socket::Secure(Box::new(connector.connect(name, socket).await?.into())))
    }
}
